// A machine without KVM: the journal runs on threads of this process instead of vCPUs, in the same guest RAM, with the
// same API. No other kernel can run in it.
#pragma once

#include "reference_vmm/machine.hpp"

namespace coppice::reference {

result<std::unique_ptr<machine>> make_thread_machine(guest_ram ram, unsigned lanes);

}  // namespace coppice::reference
