// One write to an image, and where writes go. Copy thread only.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "base/units.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/save_buffer.hpp"

namespace coppice {

// A captured page on its way into the image.
struct capture_write {
  bounce_buffer* buffer = nullptr;
  bool must_write = false;  // even if zero: the bulk stream has put something else there
};

// Of neighbouring pages: a bulk write, or one of captures by themselves. Submitted or about to be.
struct write_operation {
  std::uint64_t offset = 0;               // of what is still to be written
  std::vector<iovec> parts;               // what is still to be written
  bool is_direct = false;                 // submitted with O_DIRECT
  std::size_t first_page = 0, pages = 0;  // bulk: the run of pages, each claimed or a capture that has waited
  // Bulk: where the claimed ones are, which are `done` already; none: in RAM, in flight.
  std::shared_ptr<save_buffer> saved;
  std::vector<capture_write> captures;    // a capture write: its pages; bulk: those of the run that are captures
  std::vector<capture_write> overwrites;  // bulk: pages captured while this write was in flight, to be written after it
  // Of image_writer, while it is in flight.
  class write_listener* listener = nullptr;
  std::list<write_operation>::iterator self;

  bool is_bulk() const noexcept { return pages > 0; }
  bool covers(std::size_t page) const noexcept { return page - first_page < pages; }  // bulk: whether it is of the run
  std::uint64_t size() const noexcept {                                               // still to be written
    std::uint64_t size = 0;
    for (const iovec& part : parts) size += part.iov_len;
    return size;
  }
  // The next page of a bulk write. REQUIRES: nothing of it has been written.
  void append(std::size_t page, const std::byte* content);
  // Drops the first `written` bytes.
  void advance(std::uint64_t written);
};

class write_listener {
 public:
  virtual ~write_listener() = default;
  // `outcome`: bytes written, or -errno. The operation is the listener's again.
  virtual void completed(write_operation& operation, int outcome) = 0;
};

// Makes writes, several at a time, in no order. The seam that lets the writer be tested without io_uring.
class write_queue {
 public:
  virtual ~write_queue() = default;
  // Takes the operation's parts to `image`; its listener hears what became of it, later and once. The operation stays
  // where it is until then. `by_worker`: as submitting it might block.
  virtual void push(int image, write_operation& operation, bool by_worker) = 0;
  // Begins what was pushed now, not only when the thread next waits.
  virtual void submit() = 0;
};

}  // namespace coppice
