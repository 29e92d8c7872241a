// Writes one image: what is in flight, what has become of it, how fast it may go, and the digests of what it holds.
#pragma once

#include <chrono>
#include <list>
#include <optional>
#include <vector>

#include "base/fd.hpp"
#include "copy_engine/engine_stats.hpp"
#include "copy_engine/epoch.hpp"
#include "copy_engine/rate_limit.hpp"
#include "copy_engine/write_operation.hpp"

namespace coppice {

// Past the page cache where the file system can: guest RAM goes to the disk without another copy. Copy thread only.
// What is referred to outlives it.
class image_writer {
 public:
  // Of `pages` pages, zero up to now.
  image_writer(write_queue& queue, write_listener& listener, unique_fd image, std::size_t pages, rate_limit& host_limit,
               std::uint64_t bytes_per_second, engine_counters& counters);

  // `listener` hears of it, and hands that to completed(). Counts against both limits.
  void submit(write_operation operation);

  struct ended_write {
    write_operation operation;
    std::optional<error> failure;
  };
  // nullopt: not all is written, and the write goes on. `is_wanted`: the job goes on; else a write ends as it is.
  std::optional<ended_write> completed(write_operation& operation, int outcome, bool is_wanted);

  // The bulk write in flight that `page` belongs to; nullptr: there is none.
  write_operation* bulk_write_of(std::size_t page) noexcept;

  // How long the limits hold the next bulk write up; nullopt: not before a completion.
  std::optional<std::chrono::nanoseconds> time_to_bulk_write();
  bool takes_captures() const noexcept { return capture_writes_ < max_capture_writes; }  // one more write of them
  bool is_idle() const noexcept { return in_flight_.empty(); }
  std::uint64_t bulk_bytes_in_flight() const noexcept { return bulk_bytes_; }
  std::uint64_t written_bytes() const noexcept { return written_bytes_; }
  const std::vector<std::uint64_t>& digests() const noexcept { return digests_; }  // one a page

  void set_rate(std::uint64_t bytes_per_second, engine_clock::time_point now) { limit_.set(bytes_per_second, now); }

  // Per image: they keep the disk busy, and the wait for an abort short. Captures have their own: a guest that writes
  // at random leaves thousands, on whose single pages a disk with a limit of operations takes its time, and RAM must go
  // on.
  static constexpr std::uint64_t max_bulk_bytes = 8 * mib;
  static constexpr std::size_t max_bulk_writes = 64, max_capture_writes = 64;

 private:
  void push(write_operation& operation);
  void digest(const write_operation& operation);

  write_queue& queue_;
  write_listener& listener_;
  const unique_fd image_;
  rate_limit limit_;
  rate_limit& host_limit_;
  engine_counters& counters_;
  const bool submission_may_block_;
  bool is_direct_;  // O_DIRECT is set on the image
  std::list<write_operation> in_flight_;
  std::size_t bulk_writes_ = 0, capture_writes_ = 0;  // of those in flight
  std::uint64_t bulk_bytes_ = 0;
  std::uint64_t written_bytes_ = 0;
  std::vector<std::uint64_t> digests_;
};

}  // namespace coppice
