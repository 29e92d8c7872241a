// The one error type of the project.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>

namespace coppice {

// What kind of failure, from the caller's point of view. api/ maps each to an HTTP status in one place.
enum class errc {
  invalid_argument,   // the request can never succeed as it is
  not_found,          // the thing named does not exist
  already_exists,     // the name is taken
  conflict,           // legal, but not in the present state
  unsupported,        // this VMM, kernel or machine lacks what is needed
  unavailable,        // a limit is reached, or the daemon is stopping: try again later
  no_space,           // the disk (or tmpfs) is full
  deadline_exceeded,  // a step did not finish in time
  cancelled,          // given up on request
  io,                 // the system refused an operation
  corrupt,            // data on disk or on the wire is not what it must be
  internal,           // a bug of ours
};

// The code's name as it appears in logs, metrics labels and JSON ("not_found").
std::string_view to_string(errc code) noexcept;

// A failure: its kind, the errno behind it (0 if none), and a sentence that names what, where, and what to do.
struct error {
  errc code = errc::internal;
  int sys_errno = 0;
  std::string context;

  // "context: strerror" as a person should read it.
  std::string message() const;
};

// An error from the present errno. ENOSPC/EDQUOT become no_space, ENOENT not_found; everything else io.
error errno_error(std::string context, int saved_errno = errno);

}  // namespace coppice
