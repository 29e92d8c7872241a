// What the exit code of `coppice` means; `coppice --help` says the same.
#pragma once

#include "base/error.hpp"

namespace coppice {

enum exit_code : int {
  exit_ok = 0,
  exit_failed = 1,
  exit_usage = 2,        // wrong usage, or an argument that can't be right
  exit_not_found = 3,    // no such snapshot or sandbox
  exit_conflict = 4,     // a tag taken, a snapshot in use, something this VMM can't do
  exit_unavailable = 5,  // no daemon, a limit reached, a full disk, a deadline missed: try again
  exit_bad_data = 6,     // verification found bad data
};

inline constexpr const char* exit_codes_help =
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 verification found bad data";

constexpr exit_code exit_code_of(errc code) noexcept {
  switch (code) {
    case errc::invalid_argument:
      return exit_usage;
    case errc::not_found:
      return exit_not_found;
    case errc::already_exists:
    case errc::conflict:
    case errc::unsupported:
      return exit_conflict;
    case errc::unavailable:
    case errc::no_space:
    case errc::deadline_exceeded:
      return exit_unavailable;
    case errc::corrupt:
      return exit_bad_data;
    case errc::cancelled:
    case errc::io:
    case errc::internal:
      return exit_failed;
  }
  return exit_failed;
}

}  // namespace coppice
