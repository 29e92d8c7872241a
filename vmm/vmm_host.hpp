// Starts VMM processes, watches them, and receives what they hand over. The seam that actor tests replace by fakes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/guest_memory.hpp"
#include "base/result.hpp"
#include "base/vmm_capabilities.hpp"
#include "vmm/api_channel.hpp"
#include "vmm/memory_cgroup.hpp"

namespace coppice {

// How a process ended.
struct exit_status {
  int code = 0;    // exit code, if signal is 0
  int signal = 0;  // the signal that ended it
  bool over_memory_limit = false;
  std::string describe() const;  // "exit code 1", "signal 9 (Killed)", "..., over its memory limit"
};

// A file that a VMM may write, until this is gone.
struct write_grant {
  std::filesystem::path path;  // what the VMM is to be told
  std::shared_ptr<const void> hold;
};

// One running VMM process. Owned by its sandbox actor; thread-safe. The destructor kills and reaps the process.
class running_vmm {
 public:
  virtual ~running_vmm() = default;
  virtual pid_t pid() const noexcept = 0;
  virtual api_channel& api() noexcept = 0;
  // SIGKILL. Idempotent; the exit is reported by on_exit as always.
  virtual void kill() noexcept = 0;
  // Lets the VMM write `file`, which is created if absent. Errors: io.
  virtual result<write_grant> let_write(const std::filesystem::path& file) { return write_grant{file, nullptr}; }
  // From here on the VMM can't put anything else in the place of its sockets. Called before a guest runs. Errors: io.
  virtual result<void> lock_sockets() { return {}; }
};

// How a VMM names the memory_fd that it was started with.
inline constexpr const char* vmm_memory_path = "/proc/self/fd/0";

struct start_vmm_request {
  std::string id;                    // for logs and the process's --id
  std::filesystem::path api_socket;  // created by the VMM; a left-over file is removed first. Its folder is the VM's
  std::filesystem::path log_file;    // receives stdout and stderr, appended
  bool live = false;                 // will be asked for uffd/wp (vmm_host_options::live_seccomp_filter)
  int network_namespace = -1;        // to run in (a descriptor); -1: the daemon's
  int memory_fd = -1;                // the VMM gets it as its standard input (vmm_memory_path); -1: none
  std::shared_ptr<const memory_cgroup> memory_group = {};  // to run in; none: the daemon's
  std::vector<std::filesystem::path> readable = {};        // files that the VMM will be told to read
};

class vmm_host {
 public:
  using exit_callback = std::function<void(exit_status)>;
  using uffd_callback = std::function<void(result<uffd_handover>)>;

  virtual ~vmm_host() = default;

  virtual const vmm_capabilities& capabilities() const noexcept = 0;

  // Starts a VMM in a session of its own; it dies with the daemon (PR_SET_PDEATHSIG). Returns at once: the API answers
  // `unavailable` until the process listens. `on_exit` is called exactly once, on the event loop's thread, unless the
  // running_vmm is destroyed first. Errors: not_found (no such binary), io.
  virtual result<std::unique_ptr<running_vmm>> start(const start_vmm_request& request, exit_callback on_exit) = 0;

  // Listens on `socket` (a path; a left-over is removed) for one uffd handover, then removes the path. Ready to be
  // connected to when this returns. `done` is called exactly once, on the event loop's thread. Errors:
  // deadline_exceeded, corrupt (a message that is no handover), io.
  virtual void receive_uffd(const std::filesystem::path& socket, std::chrono::milliseconds deadline,
                            uffd_callback done) = 0;
};

}  // namespace coppice
