// What the API drives: a virtual machine, on KVM (kvm_vm.hpp) or, without it, on threads (thread_vm.hpp).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "reference_vmm/memory.hpp"
#include "reference_vmm/state_file.hpp"

namespace coppice::reference {

inline constexpr unsigned max_vcpus = 4;

struct machine_config {
  unsigned vcpus = 1;
  std::uint64_t memory_mib = 128;
  bool track_dirty_pages = false;
  std::filesystem::path kernel;
  std::filesystem::path initrd = {};  // empty: none
  std::string boot_args = "reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd";
};

// A machine, created paused, owned by the API handler and driven by one thread at a time. Destroying it ends its vCPUs.
class machine {
 public:
  virtual ~machine() = default;

  // Loads the kernel and puts the vCPUs at its entry. Errors: not_found, corrupt (no ELF64 kernel), io.
  virtual result<void> boot(const machine_config& config) = 0;
  // Puts the vCPUs into a saved state. Errors: corrupt, unsupported (KVM refuses it).
  virtual result<void> restore(const state_sections& state) = 0;

  // Idempotent. pause() returns when no vCPU runs any more and none has I/O half done.
  virtual void resume() = 0;
  virtual void pause() = 0;

  // The state of everything but memory. REQUIRES: paused. Errors: io.
  virtual result<state_sections> save() = 0;
  // Moves the dirty pages that the vCPUs left since the last call into memory().dirty(). REQUIRES: paused,
  // made with track_dirty.
  virtual result<void> collect_dirty() = 0;

  virtual guest_ram& memory() noexcept = 0;
};

// On KVM, or else on threads. `track_dirty` as in the API. Errors: io, unsupported (KVM refuses something).
result<std::unique_ptr<machine>> make_machine(bool use_kvm, guest_ram ram, unsigned vcpus, bool track_dirty);
// Whether /dev/kvm can be opened for reading and writing.
bool kvm_available() noexcept;

}  // namespace coppice::reference
