// The thread that streams epochs into their images: bulk runs straight from guest RAM, captured pages from their bounce
// buffers. One io_uring, several large writes in flight; never a lock that a fault could wait for.
#pragma once

#include <liburing.h>

#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "base/task_queue.hpp"
#include "copy_engine/copy_job.hpp"
#include "copy_engine/copy_priority.hpp"
#include "copy_engine/cpu_bounds.hpp"
#include "copy_engine/engine_stats.hpp"
#include "copy_engine/fault_thread.hpp"
#include "copy_engine/rate_limit.hpp"

namespace coppice {

// post() and wake() on any thread. All other public functions are for tasks that run on the copy thread.
class copy_thread {
 public:
  // What is referred to outlives the thread. Errors: unsupported (no io_uring), io.
  static result<std::unique_ptr<copy_thread>> start(const copy_engine_options& options, fault_thread& faults,
                                                    engine_counters& counters, rate_limit& host_limit);
  ~copy_thread();  // REQUIRES: no job is left

  void post(task_queue::task work) { tasks_.post(std::move(work)); }
  void wake() noexcept { tasks_.wake(); }

  void begin(std::shared_ptr<memory_epoch> epoch, unique_fd image, copy_session::copy_completion done);
  // Ends the branch's job, if there is one, with `reason`; then (at once, or when its last write is through) calls
  // `done`. REQUIRES: the branch is detached from the fault thread.
  void end(const std::shared_ptr<memory_epoch>& epoch, const error& reason, std::function<void()> done);
  // The fault thread has given the branch up: its copy, if it has begun, fails with `reason`.
  void fail(const std::shared_ptr<memory_epoch>& epoch, const error& reason);
  // Of each branch, those being copied included; 0: no limit.
  void set_branch_rate(std::uint64_t bytes_per_second);

 private:
  copy_thread(unique_fd wakeup, const copy_engine_options& options, fault_thread& faults, engine_counters& counters,
              rate_limit& host_limit)
      : tasks_(std::move(wakeup)),
        faults_(faults),
        counters_(counters),
        host_limit_(host_limit),
        hot_set_time_(options.hot_set_time),
        branch_bytes_per_second_(options.rates.branch_bytes_per_second) {}

  result<void> set_up_ring();
  void run();
  // Gives every job one window's work. How long until there is more to do: zero, what the limits say, or the priority's
  // next look; nothing if only a task can bring more.
  std::optional<std::chrono::nanoseconds> pump();
  // Until the next bulk write of the job, as the limits say; nullopt: there is none, or not before a completion.
  std::optional<std::chrono::nanoseconds> time_to_write(copy_job& job) const;
  // While a guest stands still for its copy again and again, this thread competes for a CPU of its own, away from the
  // fault thread and from who else wants that CPU.
  void hurry_if_need_be(copy_priority& priority);
  void hurry_on(std::optional<int> cpu);  // nullopt: on none any more
  void wait_for_events(std::optional<std::chrono::nanoseconds> at_most);
  void pump_bulk(copy_job& job);
  // If the job must hurry and bounce memory is free: saves the next block there, to be written later. False: nothing
  // done.
  bool save_ahead(copy_job& job);
  void stream_block(copy_job& job, const std::shared_ptr<save_buffer>& into);
  // Streams [page, end), with its captured pages that wait; holes are settled, the last one beyond `end`, too.
  // Writes it from RAM, or saves it `into` a buffer with room for it. Returns where it stopped.
  std::size_t stream(copy_job& job, std::size_t page, std::size_t end, const std::shared_ptr<save_buffer>& into);
  // The content that the page has to add to `run`: its own, which it claims, what it saved of it, or that of a capture
  // that waits. nullptr: it is zero, or not for the stream to write.
  const std::byte* take_page(copy_job& job, std::size_t page, save_buffer* into, write_operation& run);
  // nullptr: a fault captured the page meanwhile, so that is written instead. REQUIRES: the page is claimed.
  static const std::byte* save_page(copy_job& job, std::size_t page, save_buffer& into);
  void submit(copy_job& job, write_operation operation);
  void queue_write(write_operation& operation);
  io_uring_sqe* next_entry();
  void listen_for_wakeup();
  void handle(io_uring_cqe* completion);
  void operation_done(write_operation& operation);
  // From the fault thread. The stream takes along those of pages that it has yet to reach, unless it stands or bounce
  // memory is scarce; the others are written by themselves.
  void take_captures(copy_job& job);
  void write_captures(copy_job& job);  // as many as may be in flight
  void settle_capture(copy_job& job, bounce_buffer* buffer);
  std::shared_ptr<copy_job> job_of(const std::shared_ptr<memory_epoch>& epoch) const;  // nullptr: there is none
  void fail(copy_job& job, error reason);
  void close_finished_jobs();
  void release_captures(memory_epoch& epoch);
  template <class captures>
  void release(const captures& unwanted) {
    for (const capture_write& each : unwanted) faults_.pool().release(each.buffer);
  }

  task_queue tasks_;
  fault_thread& faults_;
  engine_counters& counters_;
  rate_limit& host_limit_;
  const std::chrono::milliseconds hot_set_time_;
  std::uint64_t branch_bytes_per_second_;
  io_uring ring_{};
  std::list<std::shared_ptr<copy_job>> jobs_;
  std::optional<int> hurries_on_;  // the CPU
  cpu_bounds cpu_bounds_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace coppice
