#include "cli/vmm_path.hpp"

#include <filesystem>

namespace coppice {

std::string vmm_beside_this_program() {
  std::error_code failure;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
  const auto installed = self.parent_path() / "coppice-vmm";
  if (std::filesystem::exists(installed, failure)) return installed.string();
  const auto in_build_tree = self.parent_path().parent_path() / "vmm" / "reference" / "coppice-vmm";
  return std::filesystem::exists(in_build_tree, failure) ? in_build_tree.string() : installed.string();
}

}  // namespace coppice
