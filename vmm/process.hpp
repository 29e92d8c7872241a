// Child processes that can't outlive us, leak our descriptors or become zombies.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

// A mount that only the process sees, and what it starts.
struct private_mount {
  std::filesystem::path source;  // a file or folder; empty: a procfs that shows nothing but processes
  std::filesystem::path target;  // exists, and is a folder if the source is one
  bool writable = false;
};

struct process_spec {
  std::filesystem::path binary;            // run as it is: no search in PATH
  std::vector<std::string> arguments;      // without argv[0]
  std::filesystem::path log_file;          // receives stderr, and stdout if that is not given; appended, or created
  int network_namespace = -1;              // to run in (a descriptor); -1: ours
  int stdin_fd = -1;                       // its standard input; -1: /dev/null
  int stdout_fd = -1;                      // its standard output; -1: the log
  int cgroup_procs = -1;                   // cgroup.procs of the cgroup v2 to run in (a descriptor); -1: ours
  std::vector<private_mount> mounts = {};  // in this order; needs CAP_SYS_ADMIN
  bool keep_privileges = false;            // what root may do; else nothing, root or not
};

// One child; when memory runs out, the kernel takes it before us. Move-only; the destructor kills and reaps it. One
// thread at a time, except kill(), which any may call.
class child_process {
 public:
  child_process(pid_t pid, unique_fd pidfd) noexcept : pid_(pid), pidfd_(std::move(pidfd)) {}
  child_process(child_process&& other) noexcept = default;
  child_process& operator=(child_process&&) = delete;
  ~child_process();

  pid_t pid() const noexcept { return pid_; }
  int pidfd() const noexcept { return pidfd_.get(); }  // readable when the process has ended
  void kill() const noexcept;                          // SIGKILL; never hits another process that got the same pid
  // How it ended, and reaps it; nothing if it still runs after `patience`. Errors: io.
  result<std::optional<exit_status>> wait(std::chrono::milliseconds patience);

 private:
  pid_t pid_ = -1;
  unique_fd pidfd_;  // empty once reaped or moved from
};

// Runs `spec` in a process group of its own, without a terminal, in our session (docs/decisions/cpu-priorities.md), at
// the usual scheduling policy, with default signal handling, nothing blocked, no descriptor open but stdin, stdout and
// stderr, without capabilities unless `keep_privileges`, and unable to gain any (PR_SET_NO_NEW_PRIVS). The process gets
// SIGKILL when the *thread* that called this ends (PR_SET_PDEATHSIG; not if it changes its user): call it from one that
// lives as long as the child may. Returns after the exec. Errors: not_found (no such binary), io.
result<child_process> spawn_process(const process_spec& spec);

}  // namespace coppice
