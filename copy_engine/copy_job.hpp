// One copy: an epoch being written to its image, from its begin to its end.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "copy_engine/bulk_stream.hpp"
#include "copy_engine/captured_pages.hpp"
#include "copy_engine/copy_pressure.hpp"
#include "copy_engine/copy_tally.hpp"
#include "copy_engine/image_writer.hpp"
#include "copy_engine/save_buffer.hpp"
#include "copy_engine/stream_cursor.hpp"

namespace coppice {

enum class job_stage {
  copying,
  closing,   // the outcome is known; the fault thread closes the epoch
  draining,  // the epoch is closed; only writes in flight are waited for
};

// What a job works with. Outlives it.
struct copy_surroundings {
  write_queue& queue;
  bounce_pool& pool;
  engine_counters& counters;
  rate_limit& host_limit;
  std::chrono::milliseconds hot_set_time;
  std::function<void()> notify_settled;  // of pages enough for a slice to be lifted
};

// Copy thread only. Its owner asks is_over() after whatever has happened, has the epoch closed, and waits for the last
// writes:
//
//   copying ──is_over()──▶ begin_closing() ──the fault thread has closed the epoch──▶ closed() ──is_drained()──▶
//   finish() copying ──end(): the epoch is closed already──▶ draining
class copy_job final : public write_listener {
 public:
  // The copy fails later if it can't begin. REQUIRES: the epoch has begun.
  copy_job(const copy_surroundings& surroundings, std::shared_ptr<memory_epoch> epoch, unique_fd image,
           std::uint64_t bytes_per_second, copy_session::copy_completion done);

  const std::shared_ptr<memory_epoch>& epoch() const noexcept { return epoch_; }
  job_stage stage() const noexcept { return stage_; }
  // Whether the guest stands still for this copy again and again.
  bool must_hurry() const noexcept { return goes_on() && pressure_.is_high() && !cursor_.at_end(); }

  struct turn {
    std::optional<std::chrono::nanoseconds> more_in;  // nullopt: only a completion or a task can bring more work
    bool has_written = false;                         // a bulk write: others come first now
  };
  // One window's work: captures, a bulk write, or what is saved ahead of one.
  turn work();
  void completed(write_operation& operation, int outcome) override;
  void set_rate(std::uint64_t bytes_per_second) { writer_.set_rate(bytes_per_second, engine_clock::now()); }

  // The copy is to fail, if its outcome isn't known yet.
  void fail(error reason);
  bool is_over() const noexcept { return stage_ == job_stage::copying && (failure_ || tally_.is_complete()); }
  void begin_closing();
  // `over`: why the epoch was over before its last pages were read, which are too new then.
  void closed(const std::optional<error>& over);
  // Ends the copy, if its outcome isn't known yet, with `reason`; `done` when it has ended. REQUIRES: the epoch is
  // closed.
  void end(const error& reason, std::function<void()> done);
  bool is_drained() const noexcept { return stage_ == job_stage::draining && writer_.is_idle(); }
  // Tells all who wait for it. REQUIRES: is_drained()
  void finish();

 private:
  bool goes_on() const noexcept { return stage_ == job_stage::copying && !failure_; }
  void leave_copying(job_stage next);
  // Until the next bulk write, as the limits say; nullopt: there is none, or not before a completion.
  std::optional<std::chrono::nanoseconds> time_to_write();
  void write_block();
  // If the job must hurry and bounce memory is free: saves the next block there, to be written later. False: nothing
  // done.
  bool save_ahead();
  void stream_block(save_buffer* into, const bulk_stream::run_taker& take);
  void settle(const write_operation& ended);

  const copy_surroundings& surroundings_;
  const std::shared_ptr<memory_epoch> epoch_;
  copy_session::copy_completion done_;
  std::vector<std::function<void()>> when_ended_;
  const engine_clock::time_point begin_ = engine_clock::now();
  job_stage stage_ = job_stage::copying;
  std::optional<error> failure_;
  std::chrono::microseconds took_{};
  copy_tally tally_;
  captured_pages captured_;
  stream_cursor cursor_;
  bulk_stream stream_;
  copy_pressure pressure_;
  image_writer writer_;
  std::deque<write_operation> saved_;       // of pages saved ahead, not submitted yet
  std::shared_ptr<save_buffer> save_into_;  // the one that is being filled
  std::size_t saved_pages_ = 0;             // so far
};

}  // namespace coppice
