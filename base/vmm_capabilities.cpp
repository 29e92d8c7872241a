#include "base/vmm_capabilities.hpp"

namespace coppice {

std::string vmm_capabilities::missing_for_live() const {
  std::string missing;
  const auto need = [&](bool present, const char* name) {
    if (present) return;
    if (!missing.empty()) missing += ", ";
    missing += name;
  };
  need(vmstate_only, "snapshot type VmstateOnly");
  need(shared_memory, "mem_backend.shared");
  need(uffd_wp, "PUT /uffd/wp");
  return missing;
}

}  // namespace coppice
