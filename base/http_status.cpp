#include "base/http_status.hpp"

namespace coppice {

unsigned http_status(errc code) noexcept {
  switch (code) {
    case errc::invalid_argument:
      return 400;
    case errc::not_found:
      return 404;
    case errc::already_exists:
    case errc::conflict:
    case errc::unsupported:
    case errc::cancelled:
      return 409;
    case errc::unavailable:
    case errc::no_space:
    case errc::deadline_exceeded:
      return 503;
    case errc::io:
    case errc::corrupt:
    case errc::internal:
      return 500;
  }
  return 500;
}

errc errc_of_answer(unsigned status, std::string_view code) noexcept {
  for (errc candidate : {errc::invalid_argument, errc::not_found, errc::already_exists, errc::conflict,
                         errc::unsupported, errc::unavailable, errc::no_space, errc::deadline_exceeded, errc::cancelled,
                         errc::io, errc::corrupt, errc::internal}) {
    if (code == to_string(candidate)) return candidate;
  }
  switch (status) {
    case 404:
      return errc::not_found;
    case 409:
      return errc::conflict;
    case 503:
      return errc::unavailable;
    default:
      return status >= 400 && status < 500 ? errc::invalid_argument : errc::internal;
  }
}

}  // namespace coppice
