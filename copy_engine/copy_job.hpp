// One epoch being written to its image: what the copy thread knows of it. Used by the copy thread only.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "base/image_digest.hpp"
#include "copy_engine/epoch.hpp"
#include "copy_engine/rate_limit.hpp"
#include "copy_engine/save_buffer.hpp"

namespace coppice {

struct copy_job;

// A captured page on its way into the image.
struct capture_write {
  bounce_buffer* buffer = nullptr;
  bool must_write = false;  // even if zero: the bulk stream has put something else there
};

// One write to the image, submitted or about to be.
struct write_operation {
  copy_job* job = nullptr;
  std::uint64_t offset = 0;               // of what is still to be written
  std::vector<iovec> parts;               // what is still to be written
  bool is_direct = false;                 // submitted with O_DIRECT
  std::size_t first_page = 0, pages = 0;  // bulk: the run of pages, each claimed or a capture that has waited
  // Bulk: where the claimed ones are, which are `done` already; none: in RAM, in flight.
  std::shared_ptr<save_buffer> saved;
  std::vector<capture_write> captures;    // a capture write: its pages; bulk: those of the run that are captures
  std::vector<capture_write> overwrites;  // bulk: pages captured while this write was in flight, to be written after it
  std::list<write_operation>::iterator self;

  bool is_bulk() const noexcept { return pages > 0; }
  // The next page of a bulk write. REQUIRES: nothing of it has been written.
  void append(std::size_t page, const std::byte* content) {
    if (pages++ == 0) {
      first_page = page;
      offset = page * page_size;
    }
    if (!parts.empty() && static_cast<std::byte*>(parts.back().iov_base) + parts.back().iov_len == content) {
      parts.back().iov_len += page_size;
    } else {
      parts.push_back({const_cast<std::byte*>(content), page_size});
    }
  }
};

enum class job_stage {
  copying,
  detaching,  // the outcome is known; the fault thread lifts the protection
  detached,   // only writes in flight are waited for
};

struct copy_job {
  copy_job(std::shared_ptr<memory_epoch> of, unique_fd file, std::uint64_t bytes_per_second,
           copy_session::copy_completion completion)
      : epoch(std::move(of)),
        limit(bytes_per_second),
        image(std::move(file)),
        done(std::move(completion)),
        digests(epoch->states.size(), zero_page_digest()),
        begin(engine_clock::now()) {}

  const std::shared_ptr<memory_epoch> epoch;
  rate_limit limit;
  const unique_fd image;
  bool is_direct = false;  // O_DIRECT is set on the image
  bool submission_may_block = false;
  copy_session::copy_completion done;
  std::vector<std::function<void()>> when_ended;
  job_stage stage = job_stage::copying;
  std::optional<error> failure;

  bool has_holes = true;                // RAM had some at the begin of the copy
  std::vector<std::size_t> hot_blocks;  // still to be streamed before all others; the hottest is the last
  std::size_t next_page = 0;            // everything before has been claimed, skipped or found captured
  std::vector<std::uint64_t> digests;
  std::list<write_operation> in_flight;
  std::size_t bulk_writes = 0, capture_writes = 0;  // of those in flight
  std::uint64_t bulk_bytes = 0;
  std::map<std::size_t, bounce_buffer*> waiting;  // captures, by page, for the bulk stream to take along
  std::deque<capture_write> captures;             // to be written by themselves, not submitted yet
  std::deque<write_operation> saved;              // of pages saved ahead, not submitted yet
  std::shared_ptr<save_buffer> save_into;         // the one that is being filled
  std::size_t saved_pages = 0;                    // so far
  std::size_t settled = 0;  // pages that need no more work; the copy is complete when it reaches all
  copy_summary summary;
  engine_clock::time_point begin;

  bool bulk_complete() const noexcept { return next_page == epoch->states.size(); }
  // Whether the guest stands still for this copy again and again.
  bool must_hurry() const noexcept {
    return stage == job_stage::copying && !failure && pressure_ > pressure_to_hurry && !bulk_complete();
  }
  void look_at_faults(engine_clock::time_point now) noexcept;
  void block_streamed() noexcept { pressure_ -= std::min<std::uint64_t>(pressure_, 1); }
  void settle_pages(std::size_t pages) noexcept {
    settled += pages;
    epoch->settled_pages.store(settled, std::memory_order_relaxed);
  }

  // What the guest wrote to during the pre-arm goes first: once copied it costs the guest no captures any more. If
  // these are a few blocks, the faults of the first `hot_set_time` don't make the copy hurry.
  void put_hot_blocks_first(std::chrono::milliseconds hot_set_time);
  // Finds out whether RAM has holes at all. Errors: io.
  result<void> look_for_holes();
  // `page`, or the next one that is no hole; the number of pages if there is none. Errors: io.
  //
  // Pages in memory are found a block at a time (mincore); of others, SEEK_DATA tells whether they are a hole or
  // swapped out. SEEK_HOLE would tell how far the data go, but looks at all of them in one system call: 20 ms a GiB in
  // which a kernel without full preemption lets nobody else run on that CPU, neither the fault thread nor a vCPU.
  result<std::size_t> next_data(std::size_t page);
  // Settles the hole [first, end): it is zero, and a guest that writes there is captured first.
  void skip_hole(std::size_t first, std::size_t end) noexcept;

 private:
  bool is_in_memory(std::size_t page) noexcept;

  // A guest that has more than one capturing fault a block (0.5 ms or so) raises it.
  static constexpr std::uint64_t pressure_to_hurry = 64, most_pressure = 128;

  engine_clock::time_point faults_count_from_;
  std::uint64_t faults_seen_ = 0;                                // capturing ones
  std::uint64_t pressure_ = 0;                                   // one more with each of them, one less with each block
  std::size_t known_block_ = static_cast<std::size_t>(-1);       // the one that the next is about
  std::array<unsigned char, block_pages> in_memory_of_block_{};  // as mincore tells: bit 0
};

}  // namespace coppice
