// Memory limits of VMs, by cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).
//
// Memory counts for the group of the process that touches it first, and for good: a VM's RAM counts for its group only
// if a process inside fills it (load_image_inside). A group holds the VMM's own memory, too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// One VM's group. The destructor removes it: whoever runs inside has ended before. Thread-safe.
class memory_cgroup {
 public:
  memory_cgroup(std::filesystem::path folder, unique_fd procs) noexcept
      : folder_(std::move(folder)), procs_(std::move(procs)) {}
  ~memory_cgroup();
  memory_cgroup(const memory_cgroup&) = delete;
  memory_cgroup& operator=(const memory_cgroup&) = delete;

  int procs_fd() const noexcept { return procs_.get(); }  // of cgroup.procs: who writes "0" there is inside
  // Whether the kernel has ended processes inside because they needed more than the limit.
  bool has_killed() const;

 private:
  const std::filesystem::path folder_;
  const unique_fd procs_;
};

// The folder that the groups are made in. Thread-safe.
class memory_cgroups {
 public:
  // `folder` must be ours: a cgroup v2 with the controller `memory` that we may write to (systemd: Delegate=memory).
  // The kernel allows no processes in a folder that hands its controllers on: if this process runs in `folder`, it
  // moves to `folder`/daemon. Groups that a daemon before has left there are removed. Errors: invalid_argument (no such
  // folder, or none of cgroup v2), unsupported (no controller `memory`), io.
  static result<std::shared_ptr<const memory_cgroups>> open(std::filesystem::path folder);

  // Whether open() could succeed; changes nothing. Errors: invalid_argument, unsupported, io.
  static result<void> check(const std::filesystem::path& folder);

  // With nobody inside yet, and without swap. Errors: io.
  result<std::shared_ptr<const memory_cgroup>> create(const std::string& name, std::uint64_t limit_bytes) const;

 private:
  explicit memory_cgroups(std::filesystem::path folder) : folder_(std::move(folder)) {}
  const std::filesystem::path folder_;
};

}  // namespace coppice
