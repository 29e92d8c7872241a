// The thread that serves write faults of all VMs, and decides on every change of protection. Long ones (the pre-arm,
// the lifting of what is copied) are made by a helper, one piece at a time, while faults go on being served:
// - a page is marked as touched before it is lifted: whether the pre-arm protects it just before or just after, the
//   re-arm protects it once more;
// - a piece is lifted only when no epoch needs any page of it, and a new epoch's pre-arm begins after that piece.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/task_queue.hpp"
#include "base/worker_pool.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/cpu_bounds.hpp"
#include "copy_engine/engine_stats.hpp"
#include "copy_engine/epoch.hpp"

namespace coppice {

// post() and notify_released() on any thread. All other public functions are for tasks that run on the fault thread.
class fault_thread {
 public:
  static result<std::unique_ptr<fault_thread>> start(const copy_engine_options& options, engine_counters& counters);
  // REQUIRES: no VM is attached any more.
  ~fault_thread();

  void post(task_queue::task work) { tasks_.post(std::move(work)); }

  // A copy thread has released bounce buffers or settled pages: faults that wait for that are tried again.
  void notify_released() noexcept {
    if (deferred_.load() > 0) tasks_.wake();
  }
  // It has settled pages enough for a slice, which may be lifted now.
  void notify_settled() noexcept { tasks_.wake(); }
  bounce_pool& pool() noexcept { return pool_; }
  // Runs not on `cpu` while a copy thread hurries there: a vCPU that it wakes would find both CPUs taken. One call with
  // false for each with true.
  void keep_off(int cpu, bool wanted);
  // Gives bounce memory back to the system, slice by slice, once no VM is being branched.
  void trim_pool() { trim_offset_ = 0; }

  result<void> attach(const std::shared_ptr<attached_vm>& vm);
  // Closes the uffd (the kernel lifts all protection) and detaches the VM's epochs, which it returns.
  std::vector<std::shared_ptr<memory_epoch>> detach_vm(attached_vm& vm);

  void begin_prearm(const std::shared_ptr<memory_epoch>& epoch, copy_session::completion done);
  void rearm(memory_epoch& epoch, const copy_session::completion& done);
  // The epoch is over. `done` when the VM's protection is lifted, or at once if another epoch needs it.
  void detach(memory_epoch& epoch, std::function<void()> done);

 private:
  fault_thread(const copy_engine_options& options, bounce_pool pool, unique_fd epoll, unique_fd wakeup,
               engine_counters& counters);

  void run();
  void begin_slice();  // of a long protection change, unless there is none to do or one is under way; else of the trim
  void trim_slice();
  // The pre-arm that is due first, where each has time in proportion to its RAM. REQUIRES: there is one.
  std::shared_ptr<memory_epoch> next_to_prearm() const;
  void prearm_slice(const std::shared_ptr<attached_vm>& vm, const std::shared_ptr<memory_epoch>& epoch);
  void prearm_touched(const std::shared_ptr<attached_vm>& vm, const std::shared_ptr<memory_epoch>& epoch);
  // By the helper; `done` runs on this thread.
  void change_protection(const std::shared_ptr<attached_vm>& vm, std::vector<memory_region> pieces, bool protect,
                         std::function<void(result<void>)> done);
  void prearm_failed(memory_epoch& epoch, const result<void>& outcome);
  void end_prearm_round(memory_epoch& epoch);
  static std::vector<memory_region> pieces_of(const attached_vm& vm, std::vector<std::size_t>& pages);
  // The next slice of RAM of which no epoch needs any page to be protected any more; nullopt: there is none yet.
  static std::optional<memory_region> next_to_lift(attached_vm& vm);
  static bool is_all_needed(const attached_vm& vm);  // by an epoch that is pre-arming or pre-armed
  static void begin_lifting(attached_vm& vm);
  void lift_slice(const std::shared_ptr<attached_vm>& vm, const memory_region& piece);
  void end_lifting(attached_vm& vm);
  void read_faults(attached_vm& vm);
  // Serves `page` and the `window - 1` pages after it with at most `buffers` bounce buffers. False: they are too few.
  // They have captured the page for some epochs then, and the next attempt needs the fewer.
  // REQUIRES: buffers <= pool_.available_to(vm.bounce)
  bool serve_fault(attached_vm& vm, std::size_t page, std::size_t window, std::size_t buffers);
  // Whether no epoch needs the page to be protected: each has begun and copied or captured it, or has failed. One that
  // is pre-arming or pre-armed needs every page: it must hear of each write.
  static bool is_saved(const attached_vm& vm, std::size_t page);
  static void lift(const attached_vm& vm, const memory_region& piece);
  static void lift_saved(const attached_vm& vm, std::size_t page);
  // REQUIRES: the epoch needs the page, and a bounce buffer is free.
  void capture(memory_epoch& epoch, std::size_t page);
  void retry_deferred();
  // Those whose pages were saved meanwhile need no buffer, whatever waits before them. How many they were.
  static std::size_t lift_saved_deferred(attached_vm& vm);
  int deferral_timeout() const;  // milliseconds until a deferred fault has waited too long; -1: there is none
  void give_up_overdue();
  void give_up(attached_vm& vm, std::size_t page);

  const std::chrono::milliseconds longest_deferral_;
  bounce_pool pool_;
  unique_fd epoll_;
  task_queue tasks_;
  engine_counters& counters_;
  std::map<int, std::shared_ptr<attached_vm>> vms_;  // by uffd
  int last_sliced_ = -1, last_retried_ = -1;         // the uffds of the VMs whose turn it was
  std::atomic<std::uint64_t> deferred_{0};
  cpu_bounds cpu_bounds_;
  std::vector<int> kept_off_;
  bool slice_under_way_ = false;
  std::optional<std::uint64_t> trim_offset_;  // of the bounce memory that is still to be given back
  bool stopping_ = false;
  // Of ordinary priority. This thread, which comes before all else, must not do that work: it would keep the CPU from a
  // vCPU that happens to run there for as long as the whole change takes.
  worker_pool helper_{1, "coppice-protect", SCHED_OTHER};
  std::thread thread_;  // ends before the helper, which hands it results
};

}  // namespace coppice
