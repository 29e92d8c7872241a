// Saving and restoring a vCPU. The orders follow Firecracker (src/vmm/src/arch/x86_64/vcpu.rs, save_state and
// restore_state), whose comments say why: some GETs change state, some SETs depend on others.
#include <sys/ioctl.h>

#include <algorithm>

#include "reference_vmm/boot.hpp"
#include "reference_vmm/kvm_abi.hpp"
#include "reference_vmm/vcpu.hpp"

namespace coppice::reference {
namespace {

constexpr std::uint32_t msr_tsc_deadline = 0x6e0;

template <class T>
result<void> fetch(int fd, unsigned long request, const char* what, const std::string& name, state_sections& into) {
  T value{};
  if (::ioctl(fd, request, &value) != 0) return errno_error(what);
  into.set_struct(name, value);
  return {};
}

template <class T>
result<void> apply(int fd, unsigned long request, const char* what, const std::string& name,
                   const state_sections& from) {
  auto value = from.get_struct<T>(name);
  if (!value) return std::move(value).error();
  if (::ioctl(fd, request, &*value) != 0) return errno_error(what);
  return {};
}

}  // namespace

std::string vcpu::section(const char* name) const {
  return "vcpu" + std::to_string(index_) + "." + name;
}

result<void> vcpu::set_cpuid(unsigned count) {
  std::vector<kvm_cpuid_entry2> entries = environment_.cpuid;
  for (kvm_cpuid_entry2& entry : entries) {
    if (entry.function == 1) entry.ebx = (entry.ebx & 0xffff) | (count << 16) | (index_ << 24);
    if (entry.function == 0xb || entry.function == 0x1f) entry.edx = index_;
  }
  kvm_list<kvm_cpuid_entry2> list(entries.size());
  std::copy(entries.begin(), entries.end(), list.entries());
  if (::ioctl(fd_.get(), kvm_set_cpuid2, list.data()) != 0) return errno_error("KVM_SET_CPUID2");
  return {};
}

result<void> vcpu::prepare_boot(std::uint64_t entry) {
  kvm_sregs sregs{};
  if (::ioctl(fd_.get(), KVM_GET_SREGS, &sregs) != 0) return errno_error("KVM_GET_SREGS");
  sregs = entry_special_registers(sregs);
  if (::ioctl(fd_.get(), KVM_SET_SREGS, &sregs) != 0) return errno_error("KVM_SET_SREGS");
  const kvm_regs regs = entry_registers(entry);
  if (::ioctl(fd_.get(), KVM_SET_REGS, &regs) != 0) return errno_error("KVM_SET_REGS");
  kvm_fpu fpu{};
  fpu.fcw = 0x37f;
  fpu.mxcsr = 0x1f80;
  if (::ioctl(fd_.get(), KVM_SET_FPU, &fpu) != 0) return errno_error("KVM_SET_FPU");
  return set_up_local_interrupts();
}

// LINT0 takes the PIC's interrupts, LINT1 is the NMI.
result<void> vcpu::set_up_local_interrupts() {
  kvm_lapic_state lapic{};
  if (::ioctl(fd_.get(), KVM_GET_LAPIC, &lapic) != 0) return errno_error("KVM_GET_LAPIC");
  const auto set_mode = [&](std::size_t offset, std::uint32_t mode) {
    std::uint32_t value = 0;
    std::memcpy(&value, lapic.regs + offset, sizeof value);
    value = (value & ~0x700U) | (mode << 8);
    std::memcpy(lapic.regs + offset, &value, sizeof value);
  };
  set_mode(0x350, 7);  // LINT0: ExtINT
  set_mode(0x360, 4);  // LINT1: NMI
  if (::ioctl(fd_.get(), KVM_SET_LAPIC, &lapic) != 0) return errno_error("KVM_SET_LAPIC");
  return {};
}

result<void> vcpu::save(state_sections& into) const {
  const int fd = fd_.get();
  COPPICE_TRY(fetch<kvm_mp_state>(fd, KVM_GET_MP_STATE, "KVM_GET_MP_STATE", section("mp_state"), into));
  COPPICE_TRY(fetch<kvm_regs>(fd, KVM_GET_REGS, "KVM_GET_REGS", section("regs"), into));
  COPPICE_TRY(fetch<kvm_sregs>(fd, KVM_GET_SREGS, "KVM_GET_SREGS", section("sregs"), into));
  COPPICE_TRY(save_xsave(into));
  COPPICE_TRY(fetch<kvm_xcrs>(fd, KVM_GET_XCRS, "KVM_GET_XCRS", section("xcrs"), into));
  COPPICE_TRY(fetch<kvm_debugregs>(fd, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", section("debugregs"), into));
  COPPICE_TRY(fetch<kvm_lapic_state>(fd, KVM_GET_LAPIC, "KVM_GET_LAPIC", section("lapic"), into));
  COPPICE_TRY(save_msrs(into));
  return fetch<kvm_vcpu_events>(fd, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", section("events"), into);
}

result<void> vcpu::restore(const state_sections& from) {
  const int fd = fd_.get();
  COPPICE_TRY(apply<kvm_mp_state>(fd, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", section("mp_state"), from));
  COPPICE_TRY(apply<kvm_regs>(fd, KVM_SET_REGS, "KVM_SET_REGS", section("regs"), from));
  COPPICE_TRY(apply<kvm_sregs>(fd, KVM_SET_SREGS, "KVM_SET_SREGS", section("sregs"), from));
  COPPICE_TRY(restore_xsave(from));
  COPPICE_TRY(apply<kvm_xcrs>(fd, KVM_SET_XCRS, "KVM_SET_XCRS", section("xcrs"), from));
  COPPICE_TRY(apply<kvm_debugregs>(fd, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", section("debugregs"), from));
  COPPICE_TRY(apply<kvm_lapic_state>(fd, KVM_SET_LAPIC, "KVM_SET_LAPIC", section("lapic"), from));
  COPPICE_TRY(restore_msrs(from));
  return apply<kvm_vcpu_events>(fd, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", section("events"), from);
}

result<void> vcpu::save_xsave(state_sections& into) const {
  std::vector<std::byte> area(std::max(environment_.xsave_size, xsave_area_size));
  const auto request = environment_.xsave_size == 0 ? kvm_get_xsave : kvm_get_xsave2;
  if (::ioctl(fd_.get(), request, area.data()) != 0) return errno_error("KVM_GET_XSAVE");
  into.set(section("xsave"), std::move(area));
  return {};
}

result<void> vcpu::restore_xsave(const state_sections& from) {
  const auto* const area = from.find(section("xsave"));
  if (area == nullptr || area->size() != std::max(environment_.xsave_size, xsave_area_size)) {
    return error{errc::corrupt, 0, "the vmstate's FPU state is missing or of another machine"};
  }
  if (::ioctl(fd_.get(), kvm_set_xsave, area->data()) != 0) return errno_error("KVM_SET_XSAVE");
  return {};
}

// One by one where KVM stops: it lists MSRs that it then refuses to read.
result<void> vcpu::save_msrs(state_sections& into) const {
  std::vector<kvm_msr_entry> saved;
  std::vector<std::uint32_t> left = environment_.msrs;
  while (!left.empty()) {
    const std::size_t count = std::min<std::size_t>(left.size(), 128);
    kvm_list<kvm_msr_entry> list(count);
    for (std::size_t i = 0; i < count; ++i) list.entries()[i].index = left[i];
    const int read = ::ioctl(fd_.get(), kvm_get_msrs, list.data());
    if (read < 0) return errno_error("KVM_GET_MSRS");
    const auto got = static_cast<std::size_t>(read);
    saved.insert(saved.end(), list.entries(), list.entries() + got);
    left.erase(left.begin(),
               left.begin() + static_cast<std::ptrdiff_t>(std::min(got == count ? got : got + 1, left.size())));
  }
  // The deadline is armed relative to the TSC: last.
  std::stable_partition(saved.begin(), saved.end(), [](const auto& msr) { return msr.index != msr_tsc_deadline; });
  const auto raw = std::as_bytes(std::span(saved));
  into.set(section("msrs"), {raw.begin(), raw.end()});
  return {};
}

result<void> vcpu::restore_msrs(const state_sections& from) {
  const auto* const raw = from.find(section("msrs"));
  if (raw == nullptr || raw->size() % sizeof(kvm_msr_entry) != 0) {
    return error{errc::corrupt, 0, "the vmstate's MSRs are missing"};
  }
  std::vector<kvm_msr_entry> msrs(raw->size() / sizeof(kvm_msr_entry));
  std::copy(raw->begin(), raw->end(), std::as_writable_bytes(std::span(msrs)).begin());
  for (std::size_t done = 0; done < msrs.size();) {
    const std::size_t count = std::min<std::size_t>(msrs.size() - done, 128);
    kvm_list<kvm_msr_entry> list(count);
    std::copy_n(msrs.begin() + static_cast<std::ptrdiff_t>(done), count, list.entries());
    const int written = ::ioctl(fd_.get(), kvm_set_msrs, list.data());
    if (written < 0) return errno_error("KVM_SET_MSRS");
    // Read-only ones that are in the list for information only are skipped.
    done += static_cast<std::size_t>(written) == count ? count : static_cast<std::size_t>(written) + 1;
  }
  return {};
}

}  // namespace coppice::reference
