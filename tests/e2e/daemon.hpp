// A coppiced of a test's own: the real program, as a child process, on a temporary root and a free port.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "client/client.hpp"
#include "tests/support/child_program.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::e2e {

inline constexpr auto patience = child_patience;

// Paths of this build's programs, set by CMake.
inline const std::filesystem::path coppiced = COPPICE_COPPICED;
inline const std::filesystem::path coppice_cli = COPPICE_CLI;
inline const std::filesystem::path coppice_vmm = COPPICE_VMM;
inline const std::filesystem::path journal_kernel = COPPICE_JOURNAL;

// Runs `coppice` to its end. Fails the test if that takes longer than `patience`.
struct cli_outcome {
  int exit_code = -1;
  std::string output;
};
cli_outcome run_program(const std::filesystem::path& program, const std::vector<std::string>& arguments);

class daemon {
 public:
  // `vmm`: the binary; `extra`: more arguments of coppiced. The root is below /var/tmp (a disk), or `root`.
  explicit daemon(const std::filesystem::path& vmm = coppice_vmm, std::vector<std::string> extra = {},
                  std::optional<std::filesystem::path> root = std::nullopt);

  bool up() const { return client_.has_value(); }
  const api_client& api() const { return *client_; }
  child_program& process() { return *process_; }
  const std::filesystem::path& root() const { return root_; }

  // `coppice --server <this> ARGUMENTS...`
  cli_outcome cli(std::vector<std::string> arguments) const;

  // A base snapshot of the journal guest, and one sandbox started from it, writing. Its id; empty if that failed.
  std::string start_parent(const std::string& memory = "256M", const std::string& boot_args = "");
  // A branch of the sandbox, asked for by `body`. Again, for `patience`, if a step missed its deadline, or the sandbox
  // is stuck after one: where a CPU is taken away for 50 ms, that is no fault of ours.
  result<nlohmann::json> branch(const std::string& sandbox, const nlohmann::json& body) const;
  // Waits until the sandbox's journal is at least `steps` steps further; false after `patience`.
  bool advances(const std::string& sandbox, std::uint64_t steps = 1000) const;
  // The gaps that the sandbox's guest found: instants at which its memory and registers disagreed.
  std::uint64_t gaps(const std::string& sandbox) const;
  // Bytes in RssAnon and number of threads and fds of the daemon.
  std::uint64_t anonymous_bytes() const;
  std::size_t open_fds() const;

 private:
  std::optional<temp_dir> own_root_;
  std::filesystem::path root_;
  std::optional<child_program> process_;
  std::optional<api_client> client_;
};

// The VMM processes that run below `root` (their command line names it).
std::vector<pid_t> processes_naming(const std::string& text);
// Waits until there is none; false after `patience`.
bool no_process_names(const std::string& text);

}  // namespace coppice::e2e
