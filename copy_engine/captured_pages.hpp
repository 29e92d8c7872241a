// The captured pages of one epoch, from the fault thread's stack to the image: the bulk stream takes along those of
// pages that it has yet to reach; the others are written by themselves, after any bulk write of their page.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "copy_engine/copy_tally.hpp"
#include "copy_engine/image_writer.hpp"
#include "copy_engine/stream_cursor.hpp"

namespace coppice {

// Copy thread only. What is referred to outlives it.
class captured_pages {
 public:
  captured_pages(memory_epoch& epoch, bounce_pool& pool, copy_tally& tally)
      : epoch_(epoch), pool_(pool), tally_(tally) {}

  // Those that the fault thread has pushed since. If the bulk write of a page is in flight, `writer` keeps the capture
  // until that is through.
  void take(const stream_cursor& cursor, image_writer& writer);
  // Those that wait for the stream wait no longer, if it stands or bounce memory is scarce.
  void hurry_up(bool stream_stands);
  // For the stream, which has come to the page: its capture, which it owns from now on; nullptr: none waits.
  bounce_buffer* take_waiting(std::size_t page);
  // Writes as many as may be in flight by themselves. Never held up by the limits: bounce memory is scarcer.
  void write(image_writer& writer);
  // To be written by themselves, after all others.
  void write_later(const std::vector<capture_write>& captures);

  // The page is in the image, or zero: gives the buffer back, and counts the page.
  void settle(bounce_buffer* buffer) noexcept;
  // Of a job that is over: gives back what won't be written.
  void release(const std::vector<capture_write>& unwanted) noexcept;
  void release_all() noexcept;

 private:
  memory_epoch& epoch_;
  bounce_pool& pool_;
  copy_tally& tally_;
  std::map<std::size_t, bounce_buffer*> waiting_;  // by page, for the bulk stream to take along
  std::deque<capture_write> ready_;                // to be written by themselves, not submitted yet
};

// Gives back what the fault thread has pushed and nobody will take.
void release_captures(memory_epoch& epoch, bounce_pool& pool) noexcept;

}  // namespace coppice
