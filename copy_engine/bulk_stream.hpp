// The copy's way through all of RAM, a block at a time: what it claims becomes runs to be written, straight from RAM
// or, saved ahead, from a buffer.
#pragma once

#include <functional>

#include "copy_engine/captured_pages.hpp"
#include "copy_engine/copy_tally.hpp"
#include "copy_engine/stream_cursor.hpp"

namespace coppice {

// Copy thread only. What is referred to outlives it.
class bulk_stream {
 public:
  // A run of neighbouring pages with content, not submitted yet.
  using run_taker = std::function<void(write_operation)>;

  bulk_stream(memory_epoch& epoch, stream_cursor& cursor, captured_pages& captured, copy_tally& tally)
      : epoch_(epoch), cursor_(cursor), captured_(captured), tally_(tally) {}

  // Streams the next block, with its captured pages that wait; zero pages and holes are settled at once, the last hole
  // beyond the block, too. Runs go to `take`: of pages in RAM, in flight from now on, or of copies in `into`, whose
  // pages are settled. REQUIRES: !at_end(); `into` is null or has room for a block. Errors: io.
  result<void> stream_block(save_buffer* into, const run_taker& take);

 private:
  // Where it has stopped goes to `page`.
  result<void> stream(std::size_t& page, std::size_t end, save_buffer* into, const run_taker& take);
  // The content that the page has to add to `run`: its own, which it claims, what it saved of it, or that of a capture
  // that waits. nullptr: it is zero, or not for the stream to write.
  const std::byte* take_page(std::size_t page, save_buffer* into, write_operation& run);
  // nullptr: a fault captured the page meanwhile, so that is written instead. REQUIRES: the page is claimed.
  const std::byte* save_page(std::size_t page, save_buffer& into);
  // It is zero, and a guest that writes there is captured first.
  void skip_hole(std::size_t first, std::size_t end) noexcept;

  memory_epoch& epoch_;
  stream_cursor& cursor_;
  captured_pages& captured_;
  copy_tally& tally_;
};

}  // namespace coppice
