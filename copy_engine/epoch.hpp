// One branch's view of a VM's RAM: what the fault thread and the copy thread share of it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/guest_memory.hpp"
#include "base/intrusive_stack.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/copy_engine.hpp"
#include "copy_engine/page_states.hpp"

namespace coppice {

using engine_clock = std::chrono::steady_clock;

// 1 MiB: the most that one bulk write takes, the order of the copy is made of, and one fault may lift.
inline constexpr std::size_t block_pages = 256;

// 8 MiB: one call's worth of protection. Protecting RAM that is there costs about 35 ms a GiB here, in slices of 1 MiB
// or of 16 alike. Each call makes KVM drop what it maps there, and a vCPU's own fault begin anew that was under way.
inline constexpr std::size_t slice_pages = 2048;

struct attached_vm;

enum class epoch_phase {
  idle,       // made, nothing protected for it
  prearming,  // RAM is being protected slice by slice; faults mark pages as touched
  prearmed,   // all protected but the touched pages
  active,     // the epoch has begun: faults capture
  failed,     // a protection change failed, or a fault waited too long: only waits to be closed
  closed,     // over: the fault thread does nothing for it any more
};

// What is const never changes; every other member says who may use it.
struct memory_epoch {
  using failure_report = std::function<void(const std::shared_ptr<memory_epoch>&, const error&)>;

  memory_epoch(std::shared_ptr<attached_vm> of, std::shared_ptr<guest_memory> ram, std::function<void()> wake,
               failure_report report)
      : vm(std::move(of)),
        memory(std::move(ram)),
        wake_copier(std::move(wake)),
        fail_copy(std::move(report)),
        states(memory->size() / page_size),
        touches_of_block((states.size() + block_pages - 1) / block_pages) {}

  const std::shared_ptr<attached_vm> vm;
  const std::shared_ptr<guest_memory> memory;
  const std::function<void()> wake_copier;  // called by the fault thread when there are captures to take
  const failure_report fail_copy;           // called by the fault thread when it has given up the epoch

  // Fault thread only.
  epoch_phase phase = epoch_phase::idle;
  std::vector<bool> is_touched;      // while prearming or prearmed
  std::vector<std::size_t> touched;  // the same as a list, unordered
  engine_clock::time_point prearm_begin;
  std::size_t prearm_offset = 0;       // bytes of RAM protected so far
  unsigned prearm_rounds = 0;          // over all of RAM, then over what was touched in the round before
  std::vector<std::size_t> retouch;    // what is left of that
  copy_session::completion step_done;  // of the prearm or rearm that is under way
  std::optional<error> given_up;       // why, if a fault waited too long
  // Why pages that are copied from now on may be newer than the epoch; nullopt: they can't be.
  std::optional<error> why_over() const {
    if (phase == epoch_phase::active) return std::nullopt;
    return given_up.value_or(error{errc::cancelled, 0, "the branch was given up"});
  }
  // The guest wrote to it before the epoch began.
  void touch(std::size_t page) {
    if (is_touched[page]) return;
    is_touched[page] = true;
    touched.push_back(page);
    ++touches_of_block[page / block_pages];
  }

  // Shared.
  page_states states;
  std::vector<std::uint32_t> touches_of_block;     // during the pre-arm: fault thread until the rearm, then copy thread
  intrusive_stack<bounce_buffer> captures;         // pushed by the fault thread, taken by the copy thread
  std::atomic<std::uint64_t> capturing_faults{0};  // those that captured a page or more
  std::atomic<std::uint64_t> faults{0};
  std::atomic<std::int64_t> longest_fault_us{0};
  std::atomic<std::int64_t> prearm_us{0};
  std::atomic<std::uint64_t> settled_pages{0};  // this and the next are written by the copy thread
  std::atomic<bool> waits_for_limit{false};
};

}  // namespace coppice
