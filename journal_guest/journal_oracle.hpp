// Tells from an image of the journal guest's memory alone whether it is of one instant.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "journal_guest/journal_layout.hpp"

namespace coppice {

struct journal_report {
  bool is_journal = false;  // false: the image is of another guest; nothing else is filled in
  std::uint64_t lanes = 0;
  std::uint64_t steps = 0;   // all lanes together
  std::uint64_t pages = 0;   // checked
  std::uint64_t future = 0;  // pages that hold a step after the image's instant
  std::uint64_t lost = 0;    // pages that hold an older step than they must
  std::uint64_t torn = 0;    // pages whose first and last word disagree, or hold what no step wrote
  std::uint64_t gaps = 0;    // restores after which the guest found its memory not to be of its registers' instant

  std::uint64_t bad_pages() const noexcept { return future + lost + torn; }
};

// Checks the whole image. The step after the last may be half done: its page may hold either.
// Errors: corrupt (a header that makes no sense; a file too short for what its header says), io.
result<journal_report> check_journal_image(std::span<const std::byte> memory);
result<journal_report> check_journal_image(int fd, std::uint64_t size);

// What a running journal guest says of itself.
struct journal_reading {
  std::uint64_t steps = 0;
  std::uint64_t gaps = 0;
  std::uint64_t stall_count[journal::max_lanes] = {};  // recorded stalls so far, for `since` of a later reading
  std::chrono::nanoseconds longest_stall{};            // since `since`; 0 if none was above the guest's threshold
};

// Reads the headers of a guest that is running in `memory`. `since`: only stalls recorded after that reading count.
// Never writes: the memory may be under a branch's copy. Errors: unsupported (no journal guest).
result<journal_reading> read_journal(std::span<const std::byte> memory, const journal_reading& since = {});

// Cycles of the time stamp counter per second, measured once against the clock.
double tsc_hertz();

}  // namespace coppice
