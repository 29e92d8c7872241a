// Faults of all VMs, new ones and those that wait for a bounce buffer. A deferred fault is a vCPU that stands still: it
// is tried again whenever a buffer was released or a page settled, and never longer than `longest_deferral`.
#pragma once

#include <atomic>
#include <chrono>

#include "copy_engine/attached_vm.hpp"
#include "copy_engine/fault_server.hpp"

namespace coppice {

// Fault thread only, but for anything_waits(). What is referred to outlives it.
class fault_queue {
 public:
  // Wakes nobody: who releases a buffer asks anything_waits(), and then has retry() called.
  fault_queue(const attached_vms& vms, fault_server& server, engine_counters& counters,
              std::chrono::milliseconds longest_deferral)
      : vms_(vms), server_(server), counters_(counters), longest_deferral_(longest_deferral) {}

  // A new fault, read at `now`, with fault-around. It is served at once, or deferred if buffers are too few or others
  // of its VM wait already.
  void add(attached_vm& vm, std::size_t page, engine_clock::time_point now);

  // Serves deferred faults as far as buffers go, one of each VM in turn: however many wait in one of them, the others
  // have their share. Those whose pages were saved meanwhile need no buffer, whatever waits before them.
  void retry();
  // Nobody waits any more: the VM is gone.
  void forget(attached_vm& vm);

  // Any thread. Released before it is asked, a buffer is seen by retry(), or its release is heard of here.
  bool anything_waits() const noexcept { return deferred_.load() > 0; }
  // Until a fault has waited too long, rounded up; nullopt: none waits.
  std::optional<std::chrono::milliseconds> time_left(engine_clock::time_point now) const;
  // The guest comes before its branches: the epochs that a fault has waited for too long are given up, and it is
  // served.
  void give_up_overdue(engine_clock::time_point now);

 private:
  // How many they were.
  static std::size_t lift_saved_ones(attached_vm& vm);
  void give_up(attached_vm& vm, std::size_t page) const;

  const attached_vms& vms_;
  fault_server& server_;
  engine_counters& counters_;
  const std::chrono::milliseconds longest_deferral_;
  int last_retried_ = -1;  // the uffd of the VM whose turn it was
  std::atomic<std::uint64_t> deferred_{0};
};

}  // namespace coppice
