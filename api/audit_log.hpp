// A record of every request: JSON lines that are only ever appended to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "api/server.hpp"
#include "base/fd.hpp"

namespace coppice {

// Used by one thread at a time. A line is one write(2), so that a crash leaves no half of an earlier line; it is not
// synced to the disk.
class audit_log {
 public:
  // Files kept besides the current one: FILE.1 (the youngest) to FILE.5.
  static constexpr int files_kept = 5;

  // Appends to `file` (made with mode 0600 if absent), and begins a new one when it would exceed `most_bytes`.
  // Errors: io, not_found.
  static result<std::unique_ptr<audit_log>> open(std::filesystem::path file, std::uint64_t most_bytes);

  // Appends {"time", "request_id", "who", "peer", "method", "path", "status", "duration_ms"}. A failure is logged; the
  // daemon goes on.
  void record(const request_record& request);

 private:
  audit_log(std::filesystem::path file, std::uint64_t most_bytes) : file_(std::move(file)), most_bytes_(most_bytes) {}
  result<void> rotate();

  const std::filesystem::path file_;
  const std::uint64_t most_bytes_;
  unique_fd out_;
  std::uint64_t bytes_ = 0;
};

}  // namespace coppice
