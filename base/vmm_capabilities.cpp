#include "base/vmm_capabilities.hpp"

namespace coppice {
namespace {

// "1.12" of "1.12.1" and of "1.12.0-dev"
std::string_view series_of(std::string_view version) {
  const auto major = version.find('.');
  if (major == std::string_view::npos) return version;
  return version.substr(0, version.find_first_not_of("0123456789", major + 1));
}

}  // namespace

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

bool vmm_capabilities::loads_snapshots_of(std::string_view maker) const {
  if (maker.empty()) return true;
  const auto space = maker.rfind(' ');
  if (space == std::string_view::npos || maker.substr(0, space) != app_name) return false;
  return series_of(maker.substr(space + 1)) == series_of(version);
}

}  // namespace coppice
