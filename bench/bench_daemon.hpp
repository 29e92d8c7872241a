// A coppiced of the bench's own, with journal guests.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/run_folder.hpp"
#include "base/result.hpp"
#include "bench/guest_protection.hpp"
#include "bench/journal_monitor.hpp"
#include "cli/daemon_process.hpp"
#include "client/client.hpp"

namespace coppice::bench {

struct guest_spec {
  std::uint64_t memory_bytes = 0;
  std::uint64_t working_set_bytes = 0;
  std::string pattern = "random";
  std::uint64_t rest_us = 0;  // idle between two steps; 0: writes all the time
  // Give every page of RAM that the guest has not touched a content of its own, as a guest that has run for long has.
  bool fill_memory = true;
};

// Limits of the daemon's copies, as coppiced takes them; empty: what it does by itself.
struct copy_limits {
  std::string copy_rate, branch_copy_rate, bounce_memory;
};

// The largest working set of a journal guest with one vCPU and this much RAM.
std::uint64_t largest_working_set(std::uint64_t memory_bytes);
// The guest's kernel command line.
std::string boot_args_of(const guest_spec& spec);
// Writes a content of its own to every page of a base image that the journal guest does not use. Errors: no_space, io.
result<void> fill_memory_image(const std::filesystem::path& image, const guest_spec& spec);
// A program or file of the build tree, by its path there. Errors: not_found.
result<std::filesystem::path> built_file(const std::filesystem::path& path);

// Its folder is made below `parent` and removed at the end, with all snapshots. One thread uses it, but client().
class bench_daemon {
 public:
  // `vmm`: empty for the coppice-vmm of the build tree. Errors: as daemon_process::start.
  static result<std::unique_ptr<bench_daemon>> start(const std::filesystem::path& parent, const std::string& vmm,
                                                     const copy_limits& limits);
  ~bench_daemon();
  bench_daemon(const bench_daemon&) = delete;
  bench_daemon& operator=(const bench_daemon&) = delete;

  const api_client& client() const noexcept { return *client_; }
  pid_t pid() const noexcept { return process_->pid(); }
  nlohmann::json vmm() const;  // {"name", "version"}
  // In the folder whose disk the images are on.
  std::filesystem::path scratch_file(const char* name) const { return folder_ / name; }
  std::filesystem::path api_socket(const std::string& sandbox) const {
    return run_folder{root() / "run" / sandbox}.api_socket();
  }

  result<void> make_base(const std::string& tag, const guest_spec& spec);
  result<std::vector<std::string>> start_sandboxes(const std::string& tag, unsigned n);
  // The journal of a running sandbox. Errors: unsupported (its RAM is not shared), io.
  result<journal_view> view(const std::string& sandbox) const;
  // Of each of them; none at all if their RAM is not shared. Errors: io.
  result<std::vector<journal_view>> views(const std::vector<std::string>& sandboxes) const;
  // Write-protection of it from outside. Errors: as guest_protection::open.
  result<guest_protection> protection(const std::string& sandbox) const;
  // Returns when the guest has written its whole working set once. Errors: deadline_exceeded, as view.
  result<void> wait_until_filled(const std::string& sandbox, std::uint64_t working_set_bytes) const;

  // Pages of the image that are not of its instant, and whatever else is wrong with it. Errors: corrupt (it is no
  // journal's image). Thread-safe.
  result<std::uint64_t> verify(const std::string& tag) const;
  // Thread-safe.
  result<void> remove_snapshot(const std::string& tag) const;
  result<void> remove_sandbox(const std::string& id) const;

 private:
  explicit bench_daemon(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path root() const { return folder_ / "root"; }

  std::filesystem::path folder_;
  std::unique_ptr<daemon_process> process_;
  std::optional<api_client> client_;
};

}  // namespace coppice::bench
