// The thread that serves write faults of all VMs, and decides on every change of protection. Its parts, each of which
// does without a uffd: fault_server and fault_queue (faults), epoch_steps (an epoch's phases), slice_scheduler (long
// changes, which a helper makes).
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/task_queue.hpp"
#include "base/worker_pool.hpp"
#include "copy_engine/attached_vm.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/cpu_bounds.hpp"
#include "copy_engine/engine_stats.hpp"
#include "copy_engine/fault_queue.hpp"
#include "copy_engine/fault_server.hpp"
#include "copy_engine/slice_scheduler.hpp"

namespace coppice {

// post() and the notify functions on any thread. All other public functions are for tasks that run on the fault thread,
// as are those of epoch_steps.hpp.
class fault_thread {
 public:
  static result<std::unique_ptr<fault_thread>> start(const copy_engine_options& options, engine_counters& counters);
  // REQUIRES: no VM is attached any more.
  ~fault_thread();

  void post(task_queue::task work) { tasks_.post(std::move(work)); }

  // The copy thread has released bounce buffers or settled pages: faults that wait for that are tried again.
  void notify_released() noexcept {
    if (faults_.anything_waits()) tasks_.wake();
  }
  // It has settled pages enough for a slice, which may be lifted now.
  void notify_settled() noexcept { tasks_.wake(); }
  bounce_pool& pool() noexcept { return pool_; }
  // Runs not on `cpu` while the copy thread hurries there: a vCPU that it wakes would find both CPUs taken. One call
  // with false for each with true.
  void keep_off(int cpu, bool wanted);
  // Gives bounce memory back to the system, slice by slice, once no VM is being branched.
  void trim_pool() { slices_.trim_pool(); }

  // Serves the VM's faults, which come by `uffd`; its protection owns that.
  result<void> attach(const std::shared_ptr<attached_vm>& vm, int uffd);
  // Lets go of the VM's protection (the kernel lifts all of it) and closes its epochs, which it returns.
  std::vector<std::shared_ptr<memory_epoch>> detach(attached_vm& vm);

 private:
  fault_thread(const copy_engine_options& options, bounce_pool pool, unique_fd epoll, unique_fd wakeup,
               engine_counters& counters);

  void run();
  int timeout() const;  // milliseconds until a deferred fault has waited too long; -1: there is none
  void read_faults(int uffd, attached_vm& vm);

  bounce_pool pool_;
  unique_fd epoll_;
  task_queue tasks_;
  engine_counters& counters_;
  attached_vms vms_;
  fault_server server_;
  fault_queue faults_;
  cpu_bounds cpu_bounds_;
  std::vector<int> kept_off_;
  bool stopping_ = false;
  slice_scheduler slices_;
  // Of ordinary priority. This thread, which comes before all else, must not do that work: it would keep the CPU from a
  // vCPU that happens to run there for as long as the whole change takes.
  worker_pool helper_;
  std::thread thread_;  // ends before the helper, which hands it results
};

}  // namespace coppice
