// Guest RAM from an image file.
#pragma once

#include <filesystem>

#include "base/guest_memory.hpp"
#include "base/result.hpp"
#include "vmm/memory_cgroup.hpp"

namespace coppice {

// Fills `memory` with the image at `image_fd`, which must have its size; holes and zero pages of the image are left
// holes.
// REQUIRES: `memory` is fresh (all holes), and nobody runs on it. Blocks: run it off the event loop.
// Errors: corrupt (another size), no_space, io.
result<void> load_image(int image_fd, guest_memory& memory);

// The same by a process (dd) in the cgroup v2 that `cgroup_procs` is the cgroup.procs of (-1: ours); `log` receives
// what it says. Zeros are left holes 64 KiB at a time. Errors: corrupt (another size), deadline_exceeded, io.
result<void> load_image_by_process(int cgroup_procs, const std::filesystem::path& image, const guest_memory& memory,
                                   const std::filesystem::path& log);

// The same inside `group`, so that the memory counts for it. Errors, beside these: conflict (over the group's limit).
result<void> load_image_inside(const memory_cgroup& group, const std::filesystem::path& image,
                               const guest_memory& memory, const std::filesystem::path& log);

}  // namespace coppice
