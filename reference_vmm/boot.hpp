// What a 64-bit Linux kernel, or the journal guest, finds in memory at its entry: as Firecracker 1.12.1 leaves it.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.hpp"
#include "reference_vmm/memory.hpp"

namespace coppice::reference {

// Loads the ELF64 kernel and the initrd (empty: none), and writes boot_params, command line, page tables, GDT and MP
// table. Returns the entry point. Errors: not_found, corrupt (no ELF64 executable), invalid_argument (it does not fit,
// the command line is too long), io.
result<std::uint64_t> load_guest(guest_ram& ram, const std::filesystem::path& kernel, const std::string& command_line,
                                 unsigned vcpus, const std::filesystem::path& initrd = {});

// The registers at the entry: long mode, identity mapping of the first GiB, RSI = boot_params.
kvm_regs entry_registers(std::uint64_t entry);
// `before`: as KVM made the vCPU.
kvm_sregs entry_special_registers(const kvm_sregs& before);

}  // namespace coppice::reference
