#include "copy_engine/epoch_steps.hpp"

#include <algorithm>
#include <utility>

namespace coppice {
namespace {

// The pre-arm goes over the pages touched meanwhile again while there are more than this, a few times at most: what is
// left is work inside the pause.
constexpr std::size_t few_touched_pages = 8;
constexpr unsigned most_prearm_rounds = 6;

}  // namespace

void prearm_epoch(const std::shared_ptr<memory_epoch>& epoch, copy_session::completion done) {
  if (epoch->phase != epoch_phase::idle || !epoch->vm->protection) {
    return done(error{epoch->vm->protection ? errc::internal : errc::unavailable, 0,
                      "pre-arm: the VM is gone or the branch has begun"});
  }
  epoch->phase = epoch_phase::prearming;
  epoch->is_touched.assign(epoch->states.size(), false);
  epoch->prearm_begin = engine_clock::now();
  epoch->step_done = std::move(done);
  epoch->vm->epochs.push_back(epoch);
  epoch->vm->end_lifting();  // an earlier branch's protection serves this one
}

void end_prearm_round(memory_epoch& epoch) {
  if (++epoch.prearm_rounds < most_prearm_rounds && epoch.touched.size() > few_touched_pages) {
    epoch.retouch = std::exchange(epoch.touched, {});
    return;
  }
  epoch.phase = epoch_phase::prearmed;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(engine_clock::now() - epoch.prearm_begin);
  epoch.prearm_us.store(took.count(), std::memory_order_relaxed);
  std::exchange(epoch.step_done, nullptr)({});
}

void fail_prearm(memory_epoch& epoch, const result<void>& why) {
  epoch.phase = epoch_phase::failed;
  std::exchange(epoch.step_done, nullptr)(why);
}

void rearm_epoch(memory_epoch& epoch, const copy_session::completion& done) {
  if (epoch.phase != epoch_phase::prearmed) return done(error{errc::internal, 0, "re-arm without a pre-arm"});
  for (const memory_region& piece : epoch.vm->pieces_of(epoch.touched)) {
    if (auto armed = epoch.vm->protection->protect(piece); !armed) {
      epoch.phase = epoch_phase::failed;
      return done(armed);
    }
  }
  epoch.touched = {};
  epoch.is_touched = {};
  epoch.phase = epoch_phase::active;
  epoch.vm->begin_lifting();
  done({});
}

void close_epoch(memory_epoch& epoch, std::function<void()> done) {
  attached_vm& vm = *epoch.vm;
  const bool is_known = epoch.phase != epoch_phase::idle && epoch.phase != epoch_phase::closed;
  epoch.phase = epoch_phase::closed;
  if (!is_known) return done();
  std::erase_if(vm.epochs, [&](const auto& other) { return other.get() == &epoch; });
  if (auto step = std::exchange(epoch.step_done, nullptr)) step(error{errc::cancelled, 0, "the branch was given up"});
  if (!vm.protection) return done();
  // Not while another needs all: its pre-arm has called off a lifting, of which a slice may still be under way.
  if (!vm.lift_offset && !vm.is_all_needed()) vm.begin_lifting();
  if (!vm.epochs.empty()) return done();
  vm.when_lifted.push_back(std::move(done));
  if (*vm.lift_offset >= vm.memory->size()) vm.end_lifting();
}

std::vector<std::shared_ptr<memory_epoch>> close_epochs_of(attached_vm& vm) {
  auto epochs = std::exchange(vm.epochs, {});
  for (const auto& epoch : epochs) {
    epoch->phase = epoch_phase::closed;
    if (auto done = std::exchange(epoch->step_done, nullptr)) done(error{errc::unavailable, 0, "the VM is gone"});
  }
  return epochs;
}

}  // namespace coppice
