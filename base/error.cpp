#include "base/error.hpp"

#include <system_error>

namespace coppice {

std::string_view to_string(errc code) noexcept {
  switch (code) {
    case errc::invalid_argument:
      return "invalid_argument";
    case errc::not_found:
      return "not_found";
    case errc::already_exists:
      return "already_exists";
    case errc::conflict:
      return "conflict";
    case errc::unsupported:
      return "unsupported";
    case errc::unavailable:
      return "unavailable";
    case errc::no_space:
      return "no_space";
    case errc::deadline_exceeded:
      return "deadline_exceeded";
    case errc::cancelled:
      return "cancelled";
    case errc::io:
      return "io";
    case errc::corrupt:
      return "corrupt";
    case errc::internal:
      return "internal";
  }
  return "unknown";
}

std::string error::message() const {
  if (sys_errno == 0) return context;
  return context + ": " + std::generic_category().message(sys_errno);
}

error errno_error(std::string context, int saved_errno) {
  auto code = errc::io;
  if (saved_errno == ENOSPC || saved_errno == EDQUOT) code = errc::no_space;
  if (saved_errno == ENOENT) code = errc::not_found;
  return {code, saved_errno, std::move(context)};
}

}  // namespace coppice
