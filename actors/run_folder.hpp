// A VM's folder below <root>/run: its log, and the folder of its sockets, which is the VMM's if it runs as another
// user.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "base/result.hpp"

namespace coppice {

struct run_folder {
  std::filesystem::path path;

  std::filesystem::path sockets() const { return path / "s"; }
  std::filesystem::path api_socket() const { return sockets() / "api"; }
  std::filesystem::path uffd_socket() const { return sockets() / "uffd"; }
  std::filesystem::path log_file() const { return path / "log"; }
};

// Whether the sockets of folders below `run_dir` fit into a socket address (107 bytes). Errors: invalid_argument.
result<void> check_run_dir(const std::filesystem::path& run_dir);

// The last lines of a log file, on one line, for messages; empty if there is nothing. Blocks.
std::string log_tail(const std::filesystem::path& log_file, unsigned most_lines = 3, std::size_t most_bytes = 300);

}  // namespace coppice
