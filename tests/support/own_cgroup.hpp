// A cgroup v2 with the memory controller for a test, where this machine and its user can have one.
#pragma once

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace coppice {

// Removes itself, with groups that were left in it.
class own_cgroup {
 public:
  own_cgroup() {
    for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      struct statfs system {};
      if (::statfs(mount, &system) != 0 || system.f_type != CGROUP2_SUPER_MAGIC) continue;
      std::ofstream(std::string(mount) + "/cgroup.subtree_control") << "+memory" << std::flush;
      const std::string wanted = std::string(mount) + "/coppice-test-" + std::to_string(::getpid());
      if (::mkdir(wanted.c_str(), 0755) == 0) path_ = wanted;
      return;
    }
  }
  ~own_cgroup() {
    std::error_code ignored;
    if (path_.empty()) return;
    for (const auto& entry : std::filesystem::directory_iterator(path_, ignored)) ::rmdir(entry.path().c_str());
    ::rmdir(path_.c_str());
  }
  own_cgroup(const own_cgroup&) = delete;
  own_cgroup& operator=(const own_cgroup&) = delete;

  // Empty if there is no cgroup v2 here that may be written to.
  const std::filesystem::path& path() const { return path_; }
  bool has_memory() const {
    std::ifstream file(path_ / "cgroup.controllers");
    for (std::string word; file >> word;) {
      if (word == "memory") return true;
    }
    return false;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace coppice
