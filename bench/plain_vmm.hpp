// The bare API calls of a VMM from a plain loop: a blocking socket, nothing else. What a pause costs at the least.
#pragma once

#include <filesystem>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/api_channel.hpp"

namespace coppice::bench {

// One kept connection beside the daemon's. One thread uses it.
class plain_vmm {
 public:
  // Errors: io (nobody listens at `socket`).
  static result<plain_vmm> connect(const std::filesystem::path& socket);
  // Sends `request` and waits for the answer. Errors: conflict (the VMM refused it), io.
  result<void> call(const api_request& request);

 private:
  explicit plain_vmm(unique_fd socket) : socket_(std::move(socket)) {}
  unique_fd socket_;
};

struct bare_pause {
  double pause_us = 0, snapshot_us = 0, resume_us = 0;
  double sum_us() const noexcept { return pause_us + snapshot_us + resume_us; }
};
// Pause, snapshot of the vmstate only to `vmstate` (on tmpfs), resume. If a call fails, the VM is resumed all the same.
// REQUIRES: nobody else pauses or resumes the VM meanwhile.
result<bare_pause> time_bare_pause(plain_vmm& vmm, const std::filesystem::path& vmstate);

}  // namespace coppice::bench
