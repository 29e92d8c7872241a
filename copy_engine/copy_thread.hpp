// The thread that streams epochs into their images: one loop for all jobs, that gives each its turn, and waits in its
// ring only; never for a lock that a fault could wait for.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <thread>

#include "base/task_queue.hpp"
#include "copy_engine/copy_job.hpp"
#include "copy_engine/copy_priority.hpp"
#include "copy_engine/copy_ring.hpp"
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
                                                    engine_counters& counters);
  ~copy_thread();  // REQUIRES: no job is left

  void post(task_queue::task work) { tasks_.post(std::move(work)); }
  void wake() noexcept { tasks_.wake(); }

  void begin(std::shared_ptr<memory_epoch> epoch, unique_fd image, copy_session::copy_completion done);
  // Ends the epoch's job, if there is one, with `reason`; then (at once, or when its last write is through) calls
  // `done`. REQUIRES: the epoch is closed.
  void end(const std::shared_ptr<memory_epoch>& epoch, const error& reason, std::function<void()> done);
  // The fault thread has given the epoch up: its copy, if it has begun, fails with `reason`.
  void fail(const std::shared_ptr<memory_epoch>& epoch, const error& reason);
  // Also of copies that are under way.
  void set_rates(const copy_rates& rates);

 private:
  copy_thread(unique_fd wakeup, const copy_engine_options& options, fault_thread& faults);

  void run();
  // Gives every job one window's work. How long until there is more to do: zero, what the limits say, or the priority's
  // next look; nothing if only a task can bring more.
  std::optional<std::chrono::nanoseconds> give_turns();
  void close_finished_jobs();
  void have_epoch_closed(const std::shared_ptr<copy_job>& job);
  // While a guest stands still for its copy again and again, this thread competes for a CPU of its own, away from the
  // fault thread and from who else wants that CPU.
  void hurry_if_need_be(copy_priority& priority);
  void hurry_on(std::optional<int> cpu);                                               // nullopt: on none any more
  std::shared_ptr<copy_job> job_of(const std::shared_ptr<memory_epoch>& epoch) const;  // nullptr: there is none

  task_queue tasks_;
  fault_thread& faults_;
  std::uint64_t branch_bytes_per_second_;
  rate_limit host_limit_;
  std::unique_ptr<copy_ring> ring_;                // from start() on
  std::optional<copy_surroundings> surroundings_;  // the same
  std::list<std::shared_ptr<copy_job>> jobs_;
  std::optional<int> hurries_on_;  // the CPU
  cpu_bounds cpu_bounds_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace coppice
