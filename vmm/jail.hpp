// Firecracker's jailer: each VMM in a chroot of its own, as a user of its own (Firecracker, docs/jailer.md).
//
// Inside, everything that a VMM needs stands at the path that it has outside: mounted there before the jailer starts,
// in a mount namespace that ends with the VMM. So no path is translated, and nothing is left mounted. The guest's RAM
// is the VMM's standard input, as the jailer closes all other descriptors.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/process.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

struct jail_options {
  std::filesystem::path jailer;  // Firecracker's
  std::filesystem::path vmm;     // a Firecracker of the same release: the jailer wants "firecracker" in its name
  uid_t first_uid = 0;           // VMMs run as users and groups from this number on: no two at once as the same
  std::filesystem::path folder;  // of the chroots: created; on a file system with dev and exec
  // VMMs write what they are asked for into folders of their own below these: one on each file system concerned.
  std::vector<std::filesystem::path> write_folders;
  // A program that calls guard_jails() when its arguments are "--guard-jails" and `folder`; empty: no guard.
  std::filesystem::path guard = {};
};

// Waits until stdin ends, and then ends all VMMs that are jailed below `folder`. A jailed process changes its user, and
// so loses PR_SET_PDEATHSIG: this process sees to it that VMMs end with the daemon, which holds the other end. Errors:
// io.
result<void> guard_jails(const std::filesystem::path& folder);

// One VMM's chroot. The destructor removes it: the VMM has ended before. One thread at a time.
class jail {
 public:
  virtual ~jail() = default;
  // `plain`, jailed: its arguments are the VMM's, without --id.
  virtual process_spec inside(process_spec plain) const = 0;
  // running_vmm::let_write and running_vmm::lock_sockets.
  virtual result<write_grant> let_write(const std::filesystem::path& file) = 0;
  virtual result<void> lock_sockets() = 0;
};

// Makes jails. Thread-safe.
class jailer {
 public:
  virtual ~jailer() = default;
  // Starts the guard, ends VMMs below the folder that are left of a daemon whose guard was killed, too, and removes
  // their chroots. Errors: not_found (no such jailer), invalid_argument, unsupported (not root), io.
  static result<std::unique_ptr<jailer>> create(jail_options options);

  // Whether create() could succeed with this jailer; changes nothing. Errors: not_found, invalid_argument, unsupported.
  static result<void> check(const std::filesystem::path& jailer);

  // For a VMM with the name `id`. The folder of its API socket is given to its user. Errors: invalid_argument (a file
  // that its user can't read), io.
  virtual result<std::unique_ptr<jail>> make(const std::string& id, const start_vmm_request& request) = 0;
};

}  // namespace coppice
