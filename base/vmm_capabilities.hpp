// What a VMM can do: found out by vmm/, asked for by actors/, shown by api/.
#pragma once

#include <string>
#include <string_view>

namespace coppice {

// What a VMM binary can do, found out by asking it.
struct vmm_capabilities {
  std::string app_name;        // "Firecracker" or "coppice-vmm"
  std::string version;         // "1.12.1"
  bool vmstate_only = false;   // snapshot_type VmstateOnly
  bool shared_memory = false;  // mem_backend.shared
  bool uffd_wp = false;        // PUT /uffd/wp

  bool live() const noexcept { return vmstate_only && shared_memory && uffd_wp; }
  // "snapshot type VmstateOnly, mem_backend.shared": what live branching lacks here; empty if nothing.
  std::string missing_for_live() const;
  std::string name_and_version() const { return app_name + " " + version; }
  // Whether it can load a snapshot that `maker` ("Firecracker 1.12.1") wrote: one of the same name, major and minor
  // version, as the format of a vmstate changes with those. True where the maker is not known: the VMM will say.
  bool loads_snapshots_of(std::string_view maker) const;
};

}  // namespace coppice
