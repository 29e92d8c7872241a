// Write-protects a running sandbox's RAM from outside, as a branch's pre-arm does, without a branch.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/guest_memory.hpp"
#include "base/result.hpp"

namespace coppice::bench {

// Shares the userfaultfd that a daemon holds of a VM (pidfd_getfd(2)), so that the VM need not be another one than the
// one that is branched. The daemon's copy engine lifts what the guest writes to, as it does with protection that no
// branch needs any more. REQUIRES: the VM is not branched meanwhile. One thread uses it.
class guest_protection {
 public:
  // `daemon` holds the RAM of `sandbox`, whose VMM is process `vmm`. Errors: unsupported (the RAM is not shared memory
  // under a uffd, or this process has not the right to look into the daemon).
  static result<guest_protection> open(pid_t daemon, pid_t vmm, const std::string& sandbox);

  // Protects all RAM in slices, then the first `hot_end` bytes of it once more: what the guest wrote to meanwhile, and
  // so was lifted. Errors: io.
  result<void> protect(std::uint64_t hot_end);
  // Lifts everything. Errors: io.
  result<void> lift();

 private:
  guest_protection(unique_fd uffd, std::vector<memory_region> regions)
      : uffd_(std::move(uffd)), regions_(std::move(regions)) {}
  result<void> change(std::uint64_t end, bool protect);

  unique_fd uffd_;
  std::vector<memory_region> regions_;
};

}  // namespace coppice::bench
