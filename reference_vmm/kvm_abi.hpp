// The parts of KVM's interface that <linux/kvm.h> gets wrong in C++: newer versions of it declare flexible arrays
// beside an empty struct, which has size 0 in C and 1 in C++, so the sizes of these structures and the ioctl numbers
// made of them are off. Numbers and layouts as in C (Documentation/virt/kvm/api.rst).
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace coppice::reference {

inline constexpr std::size_t xsave_area_size = 4096;  // of kvm_xsave without dynamic features

inline constexpr unsigned long kvm_get_msr_index_list = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
inline constexpr unsigned long kvm_get_supported_cpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kvm_get_msrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kvm_set_msrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long kvm_set_cpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kvm_get_xsave = _IOC(_IOC_READ, KVMIO, 0xa4, xsave_area_size);
inline constexpr unsigned long kvm_set_xsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, xsave_area_size);
inline constexpr unsigned long kvm_get_xsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, xsave_area_size);

// kvm_msrs or kvm_cpuid2: a count, padding, then that many entries.
template <class Entry>
class kvm_list {
 public:
  explicit kvm_list(std::size_t count) : bytes_(header_size + count * sizeof(Entry)) {
    *reinterpret_cast<std::uint32_t*>(bytes_.data()) = static_cast<std::uint32_t>(count);
  }
  void* data() noexcept { return bytes_.data(); }
  // As the kernel may have changed it.
  std::uint32_t count() const noexcept { return *reinterpret_cast<const std::uint32_t*>(bytes_.data()); }
  Entry* entries() noexcept { return reinterpret_cast<Entry*>(bytes_.data() + header_size); }

 private:
  static constexpr std::size_t header_size = 8;
  std::vector<std::byte> bytes_;
};

}  // namespace coppice::reference
