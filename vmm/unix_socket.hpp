// Unix socket addresses, with the 107-byte limit said aloud.
#pragma once

#include <filesystem>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// Whether `path` fits a socket address. Errors: invalid_argument, naming path and limit.
result<void> check_socket_path(const std::filesystem::path& path);

// A non-blocking, listening socket at `path`; a left-over file is removed first. Errors: invalid_argument, io.
result<unique_fd> listen_unix(const std::filesystem::path& path);

// A non-blocking socket, connected to who listens at `path`: at once, or not at all. Errors: invalid_argument,
// not_found (no such file), io (nobody listens, too many wait).
result<unique_fd> connect_unix(const std::filesystem::path& path);

}  // namespace coppice
