// A machine on KVM: in-kernel interrupt chips and PIT, 1 to 4 vCPUs, one memory slot a region.
#pragma once

#include "reference_vmm/machine.hpp"

namespace coppice::reference {

// Errors: io, unsupported (the errno of the ioctl that KVM refused).
result<std::unique_ptr<machine>> make_kvm_machine(guest_ram ram, unsigned vcpus, bool track_dirty);

}  // namespace coppice::reference
