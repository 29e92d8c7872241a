#include "daemon/divisible_cgroup.hpp"

#include <unistd.h>

#include <fstream>

#include "vmm/memory_cgroup.hpp"

namespace coppice {

result<std::filesystem::path> divisible_cgroup(const std::filesystem::path& membership,
                                               const std::filesystem::path& mount) {
  constexpr std::string_view of_version_2 = "0::/";  // cgroups(7), /proc/PID/cgroup
  std::ifstream file(membership);
  std::string line;
  while (std::getline(file, line) && !line.starts_with(of_version_2)) {
  }
  if (!line.starts_with(of_version_2)) return error{errc::unsupported, 0, "this process runs in no cgroup v2"};
  auto folder = mount / line.substr(of_version_2.size());
  if (const auto usable = memory_cgroups::check(folder); !usable)
    return error{errc::unsupported, usable.error().sys_errno, usable.error().context};
  if (::access((folder / "cgroup.subtree_control").c_str(), W_OK) != 0)
    return error{errc::unsupported, errno, "no right to divide " + folder.string()};
  return folder;
}

}  // namespace coppice
