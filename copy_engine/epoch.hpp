// What the fault thread and the copy thread share: the VM, and the epochs (one per branch) of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/guest_memory.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/copy_engine.hpp"
#include "copy_engine/fault_around.hpp"
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
  failed,     // a protection change failed, or a fault waited too long: only waits for its detachment
  detached,   // over: the fault thread does nothing for it any more
};

// One branch. What is const never changes; every other member says who may use it.
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

// A fault that waits for a bounce buffer.
struct deferred_fault {
  std::size_t page = 0;
  engine_clock::time_point since;
};

// One VM's RAM under the engine's protection. Fault thread only, but for `memory` and `bounce`.
struct attached_vm {
  std::shared_ptr<guest_memory> memory;
  std::shared_ptr<const unique_fd> uffd;              // none when the VM is gone; closed when nobody uses it any more
  std::vector<memory_region> regions;                 // by file offset
  std::vector<std::shared_ptr<memory_epoch>> epochs;  // not detached ones
  bounce_share bounce;
  fault_around around;
  std::deque<deferred_fault> deferred_faults;  // oldest first
  // Bytes of RAM lifted so far, behind the copies; nullopt: nothing is protected, or an epoch needs all of it.
  std::optional<std::size_t> lift_offset;
  std::size_t saved_pages = 0;                     // RAM's first, of which that is known: no epoch needs them any more
  std::vector<std::function<void()>> when_lifted;  // called once all is (or need not be any more)

  // Page number of an address that a uffd message names; nullopt if no region holds it.
  std::optional<std::size_t> page_of(std::uint64_t address) const noexcept {
    for (const memory_region& region : regions) {
      if (address >= region.host_address && address - region.host_address < region.size) {
        return (region.file_offset + (address - region.host_address)) / page_size;
      }
    }
    return std::nullopt;
  }

  // The part of [offset, offset + size) of RAM that lies in one region, as the VMM addresses it; size 0 past the end.
  memory_region piece_at(std::uint64_t offset, std::uint64_t size) const noexcept {
    for (const memory_region& region : regions) {
      if (offset < region.file_offset + region.size) {
        const std::uint64_t begin = std::max(offset, region.file_offset);
        if (begin >= offset + size) return {0, 0, begin};
        return {region.host_address + (begin - region.file_offset),
                std::min(offset + size, region.file_offset + region.size) - begin, begin};
      }
    }
    return {0, 0, memory->size()};
  }

  // Hands pages [first, end) to `use`, piece by piece: more than one where they cross from region to region.
  template <class Use>
  void for_each_piece(std::size_t first, std::size_t end, Use use) const {
    for (std::uint64_t offset = first * page_size; offset < end * page_size;) {
      const memory_region piece = piece_at(offset, end * page_size - offset);
      use(piece);
      offset = piece.file_offset + piece.size;
    }
  }
};

}  // namespace coppice
