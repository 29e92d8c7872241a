// The daemon's inside: opens the parts and puts the actors on top.
#pragma once

#include <filesystem>
#include <memory>

#include "actors/services.hpp"
#include "control_plane/control_plane.hpp"

namespace coppice {

struct daemon_options {
  std::filesystem::path root;  // created if need be; all the daemon's files are below it
  std::filesystem::path vmm;   // a Firecracker, or coppice-vmm
  daemon_limits limits;
  branch_deadlines deadlines;
  copy_engine_options engine;
  std::uint64_t keep_free_bytes = 64 * mib;
  std::filesystem::path cgroup;               // where memory_cgroups are made; empty: none are
  std::filesystem::path jailer;               // Firecracker's, that VMMs are started with; empty: as they are
  std::filesystem::path live_seccomp_filter;  // vmm_host_options::live_seccomp_filter
  unsigned jail_first_uid = 0;                // with `jailer`: what no user of the host has, nor the 65,535 after it
  unsigned workers = 4;                       // threads for what blocks, and as many for what does so for long
};

// Opens store, VMM and copy engine and starts the actors. Blocks for some 100 ms. `meters` outlives the result.
// Errors: invalid_argument (the root's path is too long, or `cgroup` is none), conflict (another daemon holds the
// root), not_found (no such VMM or jailer), unsupported (no userfaultfd or io_uring here, no memory controller; a
// jailer, but not root), io.
result<std::unique_ptr<control_plane>> start_daemon(const daemon_options& options, metrics& meters);

// The actors alone, over parts that outlive the result. `with->loop` runs them.
std::unique_ptr<control_plane> make_control_plane(services_ptr with);

}  // namespace coppice
