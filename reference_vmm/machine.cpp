#include "reference_vmm/machine.hpp"

#include "reference_vmm/kvm_vm.hpp"
#include "reference_vmm/thread_vm.hpp"

namespace coppice::reference {

result<std::unique_ptr<machine>> make_machine(bool use_kvm, guest_ram ram, unsigned vcpus, bool track_dirty) {
  return use_kvm ? make_kvm_machine(std::move(ram), vcpus, track_dirty) : make_thread_machine(std::move(ram), vcpus);
}

}  // namespace coppice::reference
