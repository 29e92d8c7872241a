#include "cli/demo.hpp"

#include <signal.h>
#include <sys/vfs.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "cli/command_context.hpp"
#include "cli/daemon_process.hpp"
#include "cli/demo_report.hpp"
#include "client/client.hpp"
#include "options/exit_codes.hpp"
#include "options/table.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr std::chrono::seconds start_deadline{20};
constexpr std::chrono::seconds stop_deadline{5};
constexpr std::chrono::seconds call_deadline{60};
constexpr std::chrono::seconds child_life{1};
constexpr std::chrono::seconds child_deadline{20};
constexpr std::chrono::milliseconds idle_time{500};
constexpr std::chrono::milliseconds guest_poll_interval{50};
constexpr long tmpfs_magic = 0x01021994;  // linux/magic.h

std::atomic<bool> interrupted = false;
std::atomic<pid_t> daemon_pid = 0;

// Async-signal-safe: lock-free atomics and kill(2).
void on_signal(int) {
  interrupted = true;
  if (const pid_t pid = daemon_pid; pid > 0) ::kill(pid, SIGTERM);
}

// Catches SIGINT and SIGTERM while it lives.
class signal_guard {
 public:
  signal_guard() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    ::sigaction(SIGINT, &action, &old_int_);
    ::sigaction(SIGTERM, &action, &old_term_);
  }
  signal_guard(const signal_guard&) = delete;
  signal_guard& operator=(const signal_guard&) = delete;
  ~signal_guard() {
    ::sigaction(SIGINT, &old_int_, nullptr);
    ::sigaction(SIGTERM, &old_term_, nullptr);
  }

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

// A new folder, removed with everything in it at the end.
class temporary_folder {
 public:
  static result<temporary_folder> create(const fs::path& parent) {
    auto pattern = (parent / "coppice-demo-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return errno_error("cannot create a folder in " + parent.string());
    return temporary_folder(pattern);
  }
  temporary_folder(temporary_folder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  temporary_folder& operator=(temporary_folder&&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const noexcept { return path_; }

 private:
  explicit temporary_folder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

fs::path default_parent() {
  const char* from_environment = std::getenv("TMPDIR");
  struct statfs info {};
  const bool usable = from_environment != nullptr && ::statfs(from_environment, &info) == 0;
  return usable && static_cast<long>(info.f_type) != tmpfs_magic ? fs::path(from_environment) : fs::path("/var/tmp");
}

// Where building and installing put it beside the programs.
fs::path journal_guest() {
  std::error_code failure;
  const fs::path prefix = fs::read_symlink("/proc/self/exe", failure).parent_path().parent_path();
  return prefix / "share" / "coppice" / "journal.elf";
}

// The whole job; each step returns why it could not be done.
class demo {
 public:
  demo(const demo_options& options, std::ostream& err) : options_(options), err_(err) {
    results_.memory_bytes = options.memory_bytes;
  }
  result<void> run();
  demo_results& results() { return results_; }

 private:
  struct journal {
    std::uint64_t steps = 0;
    std::uint64_t gaps = 0;
    std::uint64_t longest_stall_us = 0;
  };

  result<void> start_daemon(const fs::path& root);
  result<void> do_everything();
  result<void> boot();
  result<void> measure_idle();
  result<void> branch_parent(unsigned number);
  result<void> check_children(const std::string& tag, unsigned n, std::uint64_t image_steps);
  result<void> let_run(const std::vector<std::string>& ids, std::uint64_t image_steps);
  result<std::uint64_t> verify(const std::string& tag);  // steps of the image
  result<journal> read_journal(const std::string& id, bool reset);
  result<std::vector<std::string>> start_sandboxes(const std::string& tag, unsigned n);
  result<json> branch_live(const std::string& id, const std::string& tag);
  result<void> remove(const std::string& path);
  result<void> proceed() const;  // an error once a signal came

  const demo_options& options_;
  std::ostream& err_;
  demo_results results_;
  std::unique_ptr<daemon_process> daemon_;
  std::optional<api_client> client_;
  std::string parent_;
};

result<void> demo::proceed() const {
  if (interrupted) return error{errc::cancelled, 0, "interrupted"};
  return {};
}

result<void> demo::run() {
  auto root = temporary_folder::create(options_.root.empty() ? default_parent() : fs::path(options_.root));
  if (!root.ok()) return std::move(root).error();
  COPPICE_TRY(start_daemon(root->path()));
  auto outcome = do_everything();
  auto stopped = daemon_->stop(stop_deadline);
  daemon_pid = 0;
  if (!outcome.ok() && interrupted) return error{errc::cancelled, 0, "interrupted"};
  if (!outcome.ok()) {
    const auto log = read_text_file(root->path() / "coppiced.log");
    if (log.ok())
      err_ << "--- end of coppiced's log\n"
           << log->substr(log->size() - std::min<std::size_t>(log->size(), 3000)) << "---\n";
    return outcome;
  }
  return stopped;
}

result<void> demo::start_daemon(const fs::path& root) {
  std::error_code failure;
  const fs::path here = fs::read_symlink("/proc/self/exe", failure).parent_path();
  std::vector<std::string> arguments = {"--root", (root / "root").string()};
  if (!options_.vmm.empty()) arguments.insert(arguments.end(), {"--vmm", fs::absolute(options_.vmm).string()});
  auto started = daemon_process::start(here / "coppiced", std::move(arguments), root / "coppiced.log", start_deadline);
  if (!started.ok()) return std::move(started).error();
  daemon_ = *std::move(started);
  daemon_pid = daemon_->pid();
  auto client = api_client::create(daemon_->url());
  if (!client.ok()) return std::move(client).error();
  client_ = *std::move(client);
  client_->set_timeout(call_deadline);
  err_ << "coppiced runs on " << root.string() << ", " << daemon_->url() << std::endl;
  return {};
}

result<void> demo::do_everything() {
  COPPICE_TRY(boot());
  COPPICE_TRY(measure_idle());
  for (unsigned number = 1; number <= options_.branches; ++number) COPPICE_TRY(branch_parent(number));
  const auto last = read_journal(parent_, false);
  if (!last.ok()) return last.error();
  results_.gaps += last->gaps;
  return remove("/v1/sandboxes/" + path_segment(parent_));
}

result<void> demo::boot() {
  auto version = client_->get("/version");
  if (!version.ok()) return std::move(version).error();
  const json vmm = version->value("vmm", json::object());
  results_.vmm = vmm.value("name", "?") + " " + vmm.value("version", "?");
  const fs::path kernel = options_.kernel.empty() ? journal_guest() : fs::absolute(options_.kernel);
  err_ << "booting the journal guest, " << format_bytes(options_.memory_bytes) << ", in " << results_.vmm << std::endl;
  auto base = client_->post("/v1/snapshots", {{"tag", "base"},
                                              {"kernel", kernel.string()},
                                              {"memory_bytes", options_.memory_bytes},
                                              {"boot_args", options_.boot_args}});
  if (!base.ok()) return std::move(base).error();
  auto parents = start_sandboxes("base", 1);
  if (!parents.ok()) return std::move(parents).error();
  parent_ = parents->front();
  return {};
}

result<void> demo::measure_idle() {
  const auto before = read_journal(parent_, true);
  if (!before.ok()) return before.error();
  std::this_thread::sleep_for(idle_time);
  const auto after = read_journal(parent_, true);
  if (!after.ok()) return after.error();
  if (after->steps <= before->steps)
    return error{errc::internal, 0, "the parent does not write: its journal stands still"};
  results_.idle_stall_us = after->longest_stall_us;
  return {};
}

result<void> demo::branch_parent(unsigned number) {
  COPPICE_TRY(proceed());
  const std::string tag = "branch-" + std::to_string(number);
  const auto before = read_journal(parent_, true);
  if (!before.ok()) return before.error();
  auto branch = branch_live(parent_, tag);
  if (!branch.ok()) return std::move(branch).error();
  const auto after = read_journal(parent_, true);
  if (!after.ok()) return after.error();
  if (after->steps <= before->steps) return error{errc::internal, 0, "the parent stood still during " + tag};
  branch_figures figures = figures_of(*branch);
  figures.stall_us = after->longest_stall_us;
  results_.branches.push_back(figures);
  const auto image_steps = verify(tag);
  if (!image_steps.ok()) return image_steps.error();
  const unsigned n = number == options_.branches ? options_.children : 1;
  err_ << "branch " << number << '/' << options_.branches << ": pause "
       << format_milliseconds(static_cast<double>(figures.total_us)) << ", stall "
       << format_milliseconds(static_cast<double>(figures.stall_us)) << ", image of step " << *image_steps
       << " verified; starting " << (n == 1 ? "a child" : std::to_string(n) + " children") << std::endl;
  COPPICE_TRY(check_children(tag, n, *image_steps));
  return remove("/v1/snapshots/" + tag);
}

// Each child must go on from the image's step without a gap, and its image after a second of life must be right.
result<void> demo::check_children(const std::string& tag, unsigned n, std::uint64_t image_steps) {
  auto ids = start_sandboxes(tag, n);
  if (!ids.ok()) return std::move(ids).error();
  COPPICE_TRY(let_run(*ids, image_steps));
  for (std::size_t i = 0; i < ids->size(); ++i) {
    COPPICE_TRY(proceed());
    const std::string child_tag = tag + "-child-" + std::to_string(i + 1);
    auto branch = branch_live((*ids)[i], child_tag);
    if (!branch.ok()) return std::move(branch).error();
    const auto steps = verify(child_tag);
    if (!steps.ok()) return steps.error();
    if (*steps <= image_steps) return error{errc::corrupt, 0, child_tag + " did not go on from its parent's step"};
    COPPICE_TRY(remove("/v1/sandboxes/" + path_segment((*ids)[i])));
    COPPICE_TRY(remove("/v1/snapshots/" + child_tag));
    ++results_.children;
  }
  return {};
}

result<void> demo::let_run(const std::vector<std::string>& ids, std::uint64_t image_steps) {
  const auto began = steady_clock::now();
  for (bool all_wrote = false; !all_wrote || steady_clock::now() - began < child_life;) {
    COPPICE_TRY(proceed());
    if (steady_clock::now() - began > child_deadline) {
      return error{errc::deadline_exceeded, 0,
                   "a child did not write within " + std::to_string(child_deadline.count()) + " s"};
    }
    all_wrote = true;
    for (const auto& id : ids) {
      const auto now = read_journal(id, false);
      if (!now.ok()) return now.error();
      if (now->gaps != 0) {
        results_.gaps += now->gaps;
        return error{errc::corrupt, 0, "child " + id + " found memory and registers of different instants"};
      }
      all_wrote = all_wrote && now->steps > image_steps;
    }
    std::this_thread::sleep_for(guest_poll_interval);
  }
  return {};
}

result<std::uint64_t> demo::verify(const std::string& tag) {
  auto report = client_->post("/v1/snapshots/" + tag + "/verify", json::object());
  if (!report.ok()) return std::move(report).error();
  const auto count = [&](const char* name) { return report->value(name, std::uint64_t{0}); };
  ++results_.images;
  results_.checked_pages += count("journal_pages");
  results_.gaps += count("gaps");
  const std::uint64_t bad = count("future_pages") + count("lost_pages") + count("torn_pages");
  results_.bad_pages += bad;
  if (!report->value("is_journal", false) || count("journal_pages") == 0) {
    return error{errc::internal, 0, tag + " is no image of the journal guest: nothing could be checked"};
  }
  if (!report->value("ok", false) || bad != 0 || count("gaps") != 0) {
    return error{errc::corrupt, 0, tag + " is wrong: " + report->dump()};
  }
  return count("journal_steps");
}

result<demo::journal> demo::read_journal(const std::string& id, bool reset) {
  auto status = client_->get("/v1/sandboxes/" + path_segment(id) + "/journal" + (reset ? "?reset=true" : ""));
  if (!status.ok()) return std::move(status).error();
  const auto count = [&](const char* name) { return status->value(name, std::uint64_t{0}); };
  return journal{count("steps"), count("gaps"), count("longest_stall_ns") / 1000};
}

result<std::vector<std::string>> demo::start_sandboxes(const std::string& tag, unsigned n) {
  auto list = client_->post("/v1/sandboxes", {{"snapshot_tag", tag}, {"n", n}});
  if (!list.ok()) return std::move(list).error();
  std::vector<std::string> ids;
  for (const json& item : *list) ids.push_back(item.value("id", ""));
  if (ids.size() == n) return ids;
  return error{errc::internal, 0, "asked for " + std::to_string(n) + " sandboxes, got " + std::to_string(ids.size())};
}

result<json> demo::branch_live(const std::string& id, const std::string& tag) {
  return client_->post("/v1/sandboxes/" + path_segment(id) + "/branch", {{"tag", tag}, {"mode", "live"}});
}

result<void> demo::remove(const std::string& path) {
  auto removed = client_->remove(path);
  if (!removed.ok()) return std::move(removed).error();
  return {};
}

}  // namespace

int run_demo(const demo_options& options, std::ostream& out, std::ostream& err) {
  const signal_guard signals;
  interrupted = false;
  const auto began = steady_clock::now();
  demo job(options, err);
  const auto outcome = job.run();
  demo_results& results = job.results();
  results.seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
  if (!outcome.ok()) results.failure = outcome.error().message();
  if (options.json) {
    print_json(out, to_json(results));
  } else if (!results.branches.empty()) {
    print_results(out, results);
  }
  int code = exit_ok;
  if (!outcome.ok()) {
    code = results.bad_pages + results.gaps > 0 ? exit_bad_data : exit_code_of(outcome.error().code);
    report_failure(err, options.json, {outcome.error().code, 0, "the demo failed: " + results.failure}, code);
  }
  if (options.json_file.empty()) return code;
  const auto written = write_text_file(options.json_file, to_json(results).dump(2) + "\n");
  if (written.ok()) return code;
  report_failure(err, options.json, written.error(), exit_failed);
  return code == exit_ok ? exit_failed : code;
}

}  // namespace coppice
