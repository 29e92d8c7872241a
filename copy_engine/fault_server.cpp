#include "copy_engine/fault_server.hpp"

#include <algorithm>
#include <cstring>

#include "base/log.hpp"

namespace coppice {

void fault_server::lift(const attached_vm& vm, const memory_region& piece) {
  if (auto lifted = vm.protection->lift(piece); !lifted) {
    if (lifted.error().code != errc::unavailable) spdlog::error("copy engine: {}", lifted.error().message());
  }
}

void fault_server::lift_saved(const attached_vm& vm, std::size_t page) {
  const std::size_t block_begin = page / block_pages * block_pages;
  const std::size_t block_end = std::min(block_begin + block_pages, vm.memory->size() / page_size);
  std::size_t first = page, end = page + 1;
  while (first > block_begin && vm.is_saved(first - 1)) --first;
  while (end < block_end && vm.is_saved(end)) ++end;
  vm.for_each_piece(first, end, [&](const memory_region& piece) { lift(vm, piece); });
}

std::size_t fault_server::captures_needed(const attached_vm& vm, std::size_t page, std::size_t end) {
  std::size_t needed = 0;
  for (const auto& epoch : vm.epochs) {
    for (std::size_t each = page; each < end && epoch->phase == epoch_phase::active; ++each) {
      if (epoch->states.needs_capture(each)) ++needed;
    }
  }
  return needed;
}

bool fault_server::serve(attached_vm& vm, std::size_t page, std::size_t window, std::size_t buffers) {
  if (vm.is_saved(page)) {
    lift_saved(vm, page);
    return true;
  }
  const memory_region piece = vm.piece_at(page * page_size, window * page_size);
  const std::size_t end = page + piece.size / page_size;  // the window may reach over a region's end
  if (window > 1 && captures_needed(vm, page, end) > buffers) return serve(vm, page, 1, buffers);
  for (const auto& epoch : vm.epochs) {
    if (epoch->phase == epoch_phase::active) {
      if (!capture_all(*epoch, page, end, buffers)) return false;
    } else if (epoch->phase != epoch_phase::failed) {
      for (std::size_t each = page; each < end; ++each) epoch->touch(each);
    }
  }
  lift(vm, piece);
  return true;
}

bool fault_server::capture_all(memory_epoch& epoch, std::size_t page, std::size_t end, std::size_t& buffers) {
  bool captures = false;
  for (std::size_t each = page; each < end; ++each) {
    if (!epoch.states.needs_capture(each)) continue;
    if (buffers == 0) return false;
    --buffers;
    capture(epoch, each);
    captures = true;
  }
  if (captures) epoch.capturing_faults.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void fault_server::capture(memory_epoch& epoch, std::size_t page) {
  bounce_buffer* const buffer = pool_.acquire(epoch.vm->bounce);
  buffer->page = page;
  std::memcpy(buffer->data, epoch.memory->data() + page * page_size, page_size);
  if (!epoch.states.capture(page)) return pool_.release(buffer);  // the bulk stream settled it just now
  counters_.captured_pages.fetch_add(1, std::memory_order_relaxed);
  if (epoch.captures.push(buffer)) epoch.wake_copier();
}

}  // namespace coppice
