// Where a copy's bulk stream is in RAM, and where RAM has pages at all.
#pragma once

#include <array>
#include <vector>

#include "copy_engine/epoch.hpp"

namespace coppice {

// First the blocks that the guest wrote to during the pre-arm, most touched first: once copied they cost it no captures
// any more. Then all of RAM in its order. Copy thread only.
class stream_cursor {
 public:
  // REQUIRES: the epoch has begun, and outlives it.
  explicit stream_cursor(const memory_epoch& epoch);

  // Pages [first, end).
  struct page_range {
    std::size_t first = 0, end = 0;
    bool is_hot = false;
  };
  // The next one to be streamed. REQUIRES: !at_end()
  page_range next_block();
  // The stream has gone over the block up to page `stopped`: its end, or less, or the end of a hole, which may lie
  // beyond.
  void passed(const page_range& what, std::size_t stopped) noexcept {
    if (!what.is_hot) next_page_ = stopped;
  }
  // Whether the page has been claimed, skipped or found captured, but for what hot blocks have gone ahead.
  bool has_passed(std::size_t page) const noexcept { return page < next_page_; }
  bool at_end() const noexcept { return next_page_ == pages_; }
  std::size_t hot_blocks() const noexcept { return hot_blocks_.size(); }  // that are left

  // Finds out whether RAM has holes at all; until then none is assumed. Errors: io.
  result<void> look_for_holes();
  // `page`, or the next one that is no hole; the number of pages if there is none. Errors: io.
  //
  // Pages in memory are found a block at a time (mincore); of others, SEEK_DATA tells whether they are a hole or
  // swapped out. SEEK_HOLE would tell how far the data go, but looks at all of them in one system call: 20 ms a GiB in
  // which a kernel without full preemption lets nobody else run on that CPU, neither the fault thread nor a vCPU.
  result<std::size_t> next_data(std::size_t page);

 private:
  bool is_in_memory(std::size_t page) noexcept;

  const guest_memory& memory_;
  const std::size_t pages_;
  bool has_holes_ = false;
  std::vector<std::size_t> hot_blocks_;  // the hottest is the last
  std::size_t next_page_ = 0;
  std::size_t known_block_ = static_cast<std::size_t>(-1);       // the one that the next is about
  std::array<unsigned char, block_pages> in_memory_of_block_{};  // as mincore tells: bit 0
};

}  // namespace coppice
