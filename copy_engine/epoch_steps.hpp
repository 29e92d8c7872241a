// The steps of an epoch's life: pre-arm, re-arm, close. Fault thread only: it alone knows an epoch's phase, and changes
// it. What takes long, the slices of a pre-arm and of the lifting, is made by slice_scheduler.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "copy_engine/attached_vm.hpp"

namespace coppice {

// From now on RAM is to be protected for the epoch, and its faults are noted. `done` when all is protected but what was
// touched last. Errors: unavailable (the VM is gone), cancelled (closed meanwhile), io.
void prearm_epoch(const std::shared_ptr<memory_epoch>& epoch, copy_session::completion done);
// A round is through, over all of RAM or over what was touched in the one before: another one, or the pre-arm's end.
void end_prearm_round(memory_epoch& epoch);
void fail_prearm(memory_epoch& epoch, const result<void>& why);

// Protects again what was touched; with success the epoch has begun. Errors: internal (no pre-arm before), io.
void rearm_epoch(memory_epoch& epoch, const copy_session::completion& done);

// The epoch is over. `done` when the VM's protection is lifted, or at once if another epoch needs it.
void close_epoch(memory_epoch& epoch, std::function<void()> done);

// Closes all epochs of a VM that is gone, whose protection has ended or ends now; returns them.
std::vector<std::shared_ptr<memory_epoch>> close_epochs_of(attached_vm& vm);

}  // namespace coppice
