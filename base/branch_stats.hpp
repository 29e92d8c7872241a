// What a branch is, and what it cost: the plain figures that engine, store, actors and api hand to each other.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

// How the memory of a branch is taken.
enum class branch_mode {
  live,  // vmstate-only snapshot in the pause; memory streamed afterwards under write-protection
  full,  // the VMM writes all memory in the pause: works with every Firecracker
  diff,  // the VMM writes the dirty pages in the pause; merged with the previous image afterwards
};
std::string_view to_string(branch_mode mode) noexcept;
// Errors: invalid_argument, naming the modes there are.
result<branch_mode> parse_branch_mode(std::string_view text);

// Where guest time stood still. All zero for a snapshot that is no branch.
struct pause_breakdown {
  std::chrono::microseconds pause{};     // PATCH /vm Paused: sent to answered
  std::chrono::microseconds snapshot{};  // PUT /snapshot/create: sent to answered
  std::chrono::microseconds rearm{};     // protecting the touched pages again (live only)
  std::chrono::microseconds resume{};    // PATCH /vm Resumed: sent to answered
  std::chrono::microseconds total{};     // pause sent to resume answered: the time the daemon held the guest
};

// How the memory got into the image.
struct copy_summary {
  std::uint64_t bulk_pages = 0;               // written straight from guest RAM by the bulk stream
  std::uint64_t captured_pages = 0;           // saved at a write fault (or its fault-around), then written
  std::uint64_t zero_pages = 0;               // present, all zero: left as a hole of the image
  std::uint64_t hole_pages = 0;               // never touched by the guest: skipped unread
  std::uint64_t faults = 0;                   // write-protection faults served between pre-arm and end
  std::uint64_t written_bytes = 0;            // handed to the disk
  std::chrono::microseconds prearm{};         // write-protecting all RAM while the guest ran
  std::chrono::microseconds copy{};           // resume to last page written
  std::chrono::microseconds longest_fault{};  // longest service time of one fault, message read to page lifted
};

// Bytes per second that copies may write; 0: no limit.
struct copy_rates {
  std::uint64_t host_bytes_per_second = 0;    // all copies together
  std::uint64_t branch_bytes_per_second = 0;  // each branch
};

}  // namespace coppice
