#include "copy_engine/slice_scheduler.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/log.hpp"
#include "copy_engine/epoch_steps.hpp"

namespace coppice {
namespace {

// Between two slices: lets a fault come through that one has made begin anew.
constexpr std::chrono::microseconds slice_rest{100};

constexpr std::size_t slice_touched_pages = 512;

}  // namespace

void slice_scheduler::begin_next() {
  if (slice_under_way_) return;
  // The VM after the last one served that has work.
  const auto has_work = [](const auto& entry) {
    return entry.second->next_to_lift().has_value() || entry.second->has_prearm();
  };
  auto next = std::find_if(vms_.upper_bound(last_sliced_), vms_.end(), has_work);
  if (next == vms_.end()) next = std::find_if(vms_.begin(), vms_.end(), has_work);
  if (next == vms_.end()) return trim_slice();
  last_sliced_ = next->first;
  if (const auto piece = next->second->next_to_lift()) return lift_slice(next->second, *piece);
  const auto epoch = next_to_prearm();
  if (epoch->prearm_offset < epoch->memory->size()) {
    prearm_slice(epoch);
  } else {
    prearm_touched(epoch);
  }
}

// In turns, pre-arms that begin together would all end late, and cost their guests faults until then. By its RAM, so
// that a small one need not wait for a large one.
std::shared_ptr<memory_epoch> slice_scheduler::next_to_prearm() const {
  const auto due = [](const memory_epoch& epoch) {
    return epoch.prearm_begin + std::chrono::milliseconds(epoch.memory->size() / (4 * mib));
  };
  std::shared_ptr<memory_epoch> first;
  for (const auto& [uffd, vm] : vms_) {
    for (const auto& epoch : vm->epochs) {
      if (epoch->phase == epoch_phase::prearming && (!first || due(*epoch) < due(*first))) first = epoch;
    }
  }
  return first;
}

void slice_scheduler::prearm_slice(const std::shared_ptr<memory_epoch>& epoch) {
  const memory_region piece = epoch->vm->piece_at(epoch->prearm_offset, slice_pages * page_size);
  change_protection(*epoch->vm, {piece}, true, [epoch, piece](const result<void>& armed) {
    if (epoch->phase != epoch_phase::prearming) return;  // given up meanwhile
    if (!armed) return fail_prearm(*epoch, armed);
    epoch->prearm_offset = piece.file_offset + piece.size;
    if (epoch->prearm_offset >= epoch->memory->size()) end_prearm_round(*epoch);
  });
}

// Takes up to slice_touched_pages of the pages touched in the round before, and protects them again.
void slice_scheduler::prearm_touched(const std::shared_ptr<memory_epoch>& epoch) {
  const std::size_t count = std::min(epoch->retouch.size(), slice_touched_pages);
  const auto first = epoch->retouch.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<std::size_t> pages(first, epoch->retouch.end());
  epoch->retouch.erase(first, epoch->retouch.end());
  for (const std::size_t page : pages) epoch->is_touched[page] = false;  // from now on a fault marks it again
  change_protection(*epoch->vm, epoch->vm->pieces_of(pages), true, [epoch](const result<void>& armed) {
    if (epoch->phase != epoch_phase::prearming) return;
    if (!armed) return fail_prearm(*epoch, armed);
    if (epoch->retouch.empty()) end_prearm_round(*epoch);
  });
}

void slice_scheduler::lift_slice(const std::shared_ptr<attached_vm>& vm, const memory_region& piece) {
  change_protection(*vm, {piece}, false, [vm, piece](const result<void>& lifted) {
    if (vm->lift_offset != piece.file_offset) return;  // no longer wanted
    if (!lifted) {
      if (lifted.error().code != errc::unavailable) spdlog::error("copy engine: {}", lifted.error().message());
      return vm->end_lifting();
    }
    vm->lift_offset = piece.file_offset + piece.size;
    if (*vm->lift_offset >= vm->memory->size() && vm->epochs.empty()) vm->end_lifting();
  });
}

// While no VM is branched: the faults of one that is wait for bounce memory, and the first slice of its pre-arm waits
// for this one.
void slice_scheduler::trim_slice() {
  const auto is_branched = [](const auto& entry) { return !entry.second->epochs.empty(); };
  if (!trim_offset_ || !pool_.is_unused() || std::any_of(vms_.begin(), vms_.end(), is_branched)) return;
  const std::uint64_t offset = *trim_offset_;
  constexpr std::uint64_t size = slice_pages * page_size;
  trim_offset_.reset();
  if (offset + size < pool_.size()) trim_offset_ = offset + size;
  slice_under_way_ = true;
  helper_.post([this, offset] {
    pool_.trim(offset, size);
    post_back_([this] { slice_under_way_ = false; });
  });
}

void slice_scheduler::change_protection(const attached_vm& vm, std::vector<memory_region> pieces, bool protect,
                                        std::function<void(result<void>)> done) {
  slice_under_way_ = true;
  helper_.post([this, protection = vm.protection, pieces = std::move(pieces), protect, done = std::move(done)] {
    result<void> outcome;
    for (const memory_region& piece : pieces) {
      if (piece.size == 0) continue;
      outcome = protect ? protection->protect(piece) : protection->lift(piece);
      if (!outcome) break;
    }
    std::this_thread::sleep_for(slice_rest);
    post_back_([this, outcome = std::move(outcome), done] {
      slice_under_way_ = false;
      done(outcome);
    });
  });
}

}  // namespace coppice
