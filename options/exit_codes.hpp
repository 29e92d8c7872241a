// What the exit code of `coppice` means; `coppice --help` says the same.
#pragma once

#include <cstdint>

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
  // Of exec only, as docker has them. Other codes are the program's own.
  exit_not_run = 125,         // the program wasn't run: usage, no daemon, no sandbox, no agent
  exit_not_executable = 126,  // it can't be executed
  exit_no_program = 127,      // there is no such program
  exit_signalled = 128,       // and the signal's number: what a signal ended
};

inline constexpr const char* exit_codes_help =
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 unavailable,\n6 verification found bad data, 130 "
    "interrupted;\nexec: the program's, or 125 it wasn't run, 126 not executable, 127 no such program";

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

// What passes the exit code of a program in a guest on; 0 only if that is 0. A negative one is a signal's (Python's
// way), which becomes 128 and the signal, as shells have it; what doesn't fit becomes 255.
constexpr int exit_code_passed_on(std::int64_t of_program) noexcept {
  constexpr std::int64_t most = 255;
  if (of_program >= 0) return static_cast<int>(of_program < most ? of_program : most);
  return static_cast<int>(of_program > exit_signalled - most ? exit_signalled - of_program : most);
}

}  // namespace coppice
