#include "options/vmm_path.hpp"

#include <filesystem>

namespace coppice {

std::string vmm_beside_this_program() {
  std::error_code failure;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
  return (self.parent_path() / "coppice-vmm").string();
}

}  // namespace coppice
