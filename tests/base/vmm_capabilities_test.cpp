#include "base/vmm_capabilities.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

vmm_capabilities vmm(const char* name, const char* version) {
  vmm_capabilities found;
  found.app_name = name;
  found.version = version;
  return found;
}

TEST(vmm_capabilities, a_vmm_loads_snapshots_of_its_own_name_major_and_minor_version) {
  const auto firecracker = vmm("Firecracker", "1.12.1");
  for (const char* maker : {"Firecracker 1.12.1", "Firecracker 1.12.0", "Firecracker 1.12.10", "Firecracker 1.12.1-dev",
                            "Firecracker 1.12-dev", "Firecracker 1.12"})
    EXPECT_TRUE(firecracker.loads_snapshots_of(maker)) << maker;
  for (const char* maker : {"Firecracker 1.11.1", "Firecracker 1.1.12", "Firecracker 1.120.1", "Firecracker 2.12.1",
                            "Firecracker 1", "Firecracker", "coppice-vmm 1.12.1", "firecracker 1.12.1", "1.12.1"})
    EXPECT_FALSE(firecracker.loads_snapshots_of(maker)) << maker;
  EXPECT_TRUE(vmm("my vmm", "7").loads_snapshots_of("my vmm 7"));
  EXPECT_FALSE(vmm("my vmm", "7").loads_snapshots_of("my vmm 8"));
  EXPECT_TRUE(firecracker.loads_snapshots_of("")) << "nobody wrote down what made it: the VMM will say";
}

}  // namespace
}  // namespace coppice
