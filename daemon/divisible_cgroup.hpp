// coppiced --cgroup auto.
#pragma once

#include <filesystem>

#include "base/result.hpp"

namespace coppice {

// The folder of the cgroup v2 that this process runs in, if memory_cgroups can be made there: a service's own, say,
// that systemd gives away (Delegate=memory). Errors: unsupported (no cgroup v2, no controller `memory`, no right to
// divide it), io.
result<std::filesystem::path> divisible_cgroup(const std::filesystem::path& membership = "/proc/self/cgroup",
                                               const std::filesystem::path& mount = "/sys/fs/cgroup");

}  // namespace coppice
