#include "copy_engine/fault_queue.hpp"

#include <algorithm>
#include <string>

namespace coppice {

void fault_queue::add(attached_vm& vm, std::size_t page, engine_clock::time_point now) {
  const std::size_t window = vm.around.window_for(page);
  const std::size_t buffers = vm.deferred_faults.empty() ? server_.available_to(vm) : 0;  // those that wait come first
  if (server_.serve(vm, page, window, buffers)) return;
  vm.deferred_faults.push_back({page, now});
  deferred_.fetch_add(1);
  counters_.deferred_faults.fetch_add(1, std::memory_order_relaxed);
}

void fault_queue::retry() {
  for (bool served = true; served;) {
    served = false;
    auto next = vms_.upper_bound(last_retried_);
    for (std::size_t left = vms_.size(); left > 0; --left, ++next) {
      if (next == vms_.end()) next = vms_.begin();
      attached_vm& vm = *next->second;
      deferred_.fetch_sub(lift_saved_ones(vm), std::memory_order_relaxed);
      if (vm.deferred_faults.empty() || !server_.serve(vm, vm.deferred_faults.front().page)) continue;
      vm.deferred_faults.pop_front();
      deferred_.fetch_sub(1, std::memory_order_relaxed);
      last_retried_ = next->first;
      served = true;
    }
  }
}

std::size_t fault_queue::lift_saved_ones(attached_vm& vm) {
  return std::erase_if(vm.deferred_faults, [&vm](const deferred_fault& fault) {
    if (!vm.is_saved(fault.page)) return false;
    fault_server::lift_saved(vm, fault.page);
    return true;
  });
}

void fault_queue::forget(attached_vm& vm) {
  deferred_.fetch_sub(vm.deferred_faults.size(), std::memory_order_relaxed);
  vm.deferred_faults.clear();
}

std::optional<std::chrono::milliseconds> fault_queue::time_left(engine_clock::time_point now) const {
  if (!anything_waits()) return std::nullopt;
  auto oldest = engine_clock::time_point::max();
  for (const auto& [uffd, vm] : vms_) {
    if (!vm->deferred_faults.empty()) oldest = std::min(oldest, vm->deferred_faults.front().since);
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(oldest + longest_deferral_ - now);
  return std::max(left, std::chrono::milliseconds(0));
}

void fault_queue::give_up_overdue(engine_clock::time_point now) {
  const auto overdue = now - longest_deferral_;
  for (const auto& [uffd, vm] : vms_) {
    if (!vm->deferred_faults.empty() && vm->deferred_faults.front().since <= overdue)
      give_up(*vm, vm->deferred_faults.front().page);
  }
  retry();
}

// Those that still need the page are over, and it may be written.
void fault_queue::give_up(attached_vm& vm, std::size_t page) const {
  for (const auto& epoch : vm.epochs) {
    if (epoch->phase != epoch_phase::active || !epoch->states.needs_capture(page)) continue;
    epoch->phase = epoch_phase::failed;
    epoch->given_up = error{errc::unavailable, 0,
                            "the guest waited " + std::to_string(longest_deferral_.count()) +
                                " ms for bounce memory: the disk is too slow for its writes"};
    epoch->fail_copy(epoch, *epoch->given_up);
  }
}

}  // namespace coppice
