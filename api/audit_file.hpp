// The file of the audit log: lines that are only ever appended to, in a few files that don't grow without end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// Used by one thread at a time; any call may wait for the disk. A line is one write(2), so that a crash leaves no half
// of an earlier line; it is not synced to the disk.
class audit_file {
 public:
  // Files kept besides the current one: FILE.1 (the youngest) to FILE.5.
  static constexpr int files_kept = 5;

  // Appends to `file` (made with mode 0600 if absent), and begins a new one when it would exceed `most_bytes`.
  // Errors: io, not_found.
  static result<audit_file> open(std::filesystem::path file, std::uint64_t most_bytes);

  // `line` ends in a newline. Errors: io, no_space; nothing of the line is left then. That no new file can be begun is
  // no error, but logged: the old one grows.
  result<void> append(std::string_view line);

 private:
  audit_file(std::filesystem::path file, std::uint64_t most_bytes) : file_(std::move(file)), most_bytes_(most_bytes) {}
  result<void> rotate();

  std::filesystem::path file_;
  std::uint64_t most_bytes_;
  unique_fd out_;
  std::uint64_t bytes_ = 0;
};

}  // namespace coppice
