// What the daemon's process uses, from /proc.
#pragma once

#include <cstdint>

namespace coppice {

struct process_figures {
  double started_at_unix = 0;      // seconds
  double cpu_seconds = 0;          // user and system
  std::uint64_t memory_bytes = 0;  // anonymous: guest RAM, which the daemon maps, is none of it
  std::uint64_t open_fds = 0;
  std::uint64_t max_fds = 0;
};

// Of this process. What can't be read is 0.
process_figures read_process_figures();

}  // namespace coppice
