// VMMs as processes of this machine.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/jail.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

struct vmm_host_options {
  std::filesystem::path binary;           // a Firecracker, or coppice-vmm
  std::filesystem::path runtime_dir;      // exists; on tmpfs if possible; short (socket paths have 107 bytes)
  std::vector<std::string> extra_args;    // passed to every VMM before our own
  std::shared_ptr<event_loop> loop = {};  // where callbacks run; null: one of the host's own
  std::shared_ptr<jailer> jails = {};     // null: VMMs run as the daemon's user, and see what it sees
  // For VMMs that will be asked for uffd/wp: Firecracker's own has no userfaultfd(2). Empty: they run with
  // --no-seccomp.
  std::filesystem::path live_seccomp_filter = {};
};

// Checks the binary, starts it once below `runtime_dir` and asks what it can do. Blocks for that (some 20 ms). A VMM
// outlives the host object as long as its running_vmm does; handovers that the host still waits for end with
// `cancelled`. start() refuses a socket path of more than 107 bytes (invalid_argument), and on_exit may come before it
// returns. Errors: not_found or invalid_argument (the binary, naming path and --vmm), io, deadline_exceeded.
result<std::unique_ptr<vmm_host>> create_vmm_host(const vmm_host_options& options);

}  // namespace coppice
