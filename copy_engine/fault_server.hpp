// What is done at a fault: the page is saved for each epoch that needs it, marked, then lifted. In that order
// (docs/copy-engine.md).
#pragma once

#include "copy_engine/attached_vm.hpp"
#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/engine_stats.hpp"

namespace coppice {

// Fault thread only. What is referred to outlives it.
class fault_server {
 public:
  fault_server(bounce_pool& pool, engine_counters& counters) : pool_(pool), counters_(counters) {}

  // Serves `page` and the `window - 1` pages after it with at most `buffers` bounce buffers. False: they are too few.
  // They have captured the page for some epochs then, and the next attempt needs the fewer.
  // REQUIRES: buffers <= pool.available_to(vm.bounce)
  bool serve(attached_vm& vm, std::size_t page, std::size_t window, std::size_t buffers);
  // With all that the VM may have. Just the page.
  bool serve(attached_vm& vm, std::size_t page) { return serve(vm, page, 1, available_to(vm)); }
  // How many buffers it may have now.
  std::size_t available_to(const attached_vm& vm) noexcept { return pool_.available_to(vm.bounce); }

  // Lifts the page together with such neighbours of it as no epoch needs either: so they fault once and not each by
  // itself. REQUIRES: vm.is_saved(page)
  static void lift_saved(const attached_vm& vm, std::size_t page);

 private:
  static void lift(const attached_vm& vm, const memory_region& piece);
  // How many buffers pages [page, end) take.
  static std::size_t captures_needed(const attached_vm& vm, std::size_t page, std::size_t end);
  // Captures for an active epoch what it needs of pages [page, end). False: `buffers` didn't do.
  bool capture_all(memory_epoch& epoch, std::size_t page, std::size_t end, std::size_t& buffers);
  // REQUIRES: the epoch needs the page, and a bounce buffer is free.
  void capture(memory_epoch& epoch, std::size_t page);

  bounce_pool& pool_;
  engine_counters& counters_;
};

}  // namespace coppice
