#include "vmm/vmm_host.hpp"

#include <cstring>

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

std::string exit_status::describe() const {
  const std::string limit = over_memory_limit ? ", over its memory limit" : "";
  if (signal == 0) return "exit code " + std::to_string(code) + limit;
  const char* name = ::sigdescr_np(signal);
  return "signal " + std::to_string(signal) + (name != nullptr ? " (" + std::string(name) + ")" : "") + limit;
}

}  // namespace coppice
