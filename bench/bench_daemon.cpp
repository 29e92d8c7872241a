#include "bench/bench_daemon.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::chrono::seconds start_deadline{20};
constexpr std::chrono::seconds stop_deadline{10};
constexpr std::chrono::seconds call_deadline{300};
constexpr std::chrono::seconds fill_deadline{120};
constexpr std::chrono::seconds removal_patience{5};
constexpr std::chrono::milliseconds daemon_poll_interval{10};
constexpr std::uint64_t boot_time_ms = 300;
constexpr std::uint64_t stall_threshold_us = 50;

}  // namespace

std::uint64_t largest_working_set(std::uint64_t memory_bytes) {
  const std::uint64_t end = std::min<std::uint64_t>(memory_bytes, journal::lanes_end);
  return end <= journal::lanes_address ? 0 : end - journal::lanes_address;
}

std::string boot_args_of(const guest_spec& spec) {
  std::string args = "journal.pages=" + std::to_string(spec.working_set_bytes / page_size) +
                     " journal.pattern=" + spec.pattern + " journal.threshold_us=" + std::to_string(stall_threshold_us);
  if (spec.rest_us != 0) args += " journal.rest_us=" + std::to_string(spec.rest_us);
  return args;
}

result<void> fill_memory_image(const fs::path& image, const guest_spec& spec) {
  auto file = open_file(image, O_WRONLY);
  if (!file) return std::move(file).error();
  std::vector<std::uint64_t> block(mib / sizeof(std::uint64_t));
  for (std::uint64_t i = 0; i < block.size(); ++i) block[i] = journal::mix(i + 1);
  for (std::uint64_t at = journal::lanes_address + spec.working_set_bytes; at < spec.memory_bytes;) {
    const std::uint64_t length = std::min<std::uint64_t>(mib, spec.memory_bytes - at);
    for (std::uint64_t page = 0; page < length / page_size; ++page) {
      block[page * page_size / sizeof(std::uint64_t)] = at + page;  // no two pages alike
    }
    COPPICE_TRY(write_all_at(file->get(), std::as_bytes(std::span(block)).first(length), at));
    at += length;
  }
  return {};
}

result<fs::path> built_file(const fs::path& path) {
  std::error_code failure;
  const fs::path build = fs::read_symlink("/proc/self/exe", failure).parent_path().parent_path();
  if (fs::exists(build / path, failure)) return build / path;
  return error{errc::not_found, 0, (build / path).string() + " is not there: run coppice-bench from its build folder"};
}

result<std::unique_ptr<bench_daemon>> bench_daemon::start(const fs::path& parent, const std::string& vmm,
                                                          const copy_limits& limits) {
  auto binary = built_file("bin/coppiced");
  if (!binary) return std::move(binary).error();
  auto pattern = (fs::absolute(parent) / "coppice-bench-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return errno_error("cannot create a folder in " + parent.string());
  std::unique_ptr<bench_daemon> made(new bench_daemon(pattern));  // NOLINT: the constructor is private
  std::vector<std::string> arguments = {"--root", made->root().string()};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {name, value});
  };
  add("--vmm", vmm.empty() ? "" : fs::absolute(vmm).string());
  add("--copy-rate", limits.copy_rate);
  add("--branch-copy-rate", limits.branch_copy_rate);
  add("--bounce-memory", limits.bounce_memory);
  auto process = daemon_process::start(*binary, std::move(arguments), made->folder_ / "log", start_deadline);
  if (!process) return std::move(process).error();
  made->process_ = *std::move(process);
  auto client = api_client::create(made->process_->url());
  if (!client) return std::move(client).error();
  made->client_ = *std::move(client);
  made->client_->set_timeout(call_deadline);
  return made;
}

bench_daemon::~bench_daemon() {
  if (process_) [[maybe_unused]]
    const auto stopped = process_->stop(stop_deadline);  // it is killed if it must be
  process_.reset();
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

json bench_daemon::vmm() const {
  const auto version = client_->get("/version");
  return version ? version->value("vmm", json()) : json();
}

result<void> bench_daemon::make_base(const std::string& tag, const guest_spec& spec) {
  auto kernel = built_file("share/coppice/journal.elf");
  if (!kernel) return std::move(kernel).error();
  auto made = client_->post("/v1/snapshots", {{"tag", tag},
                                              {"kernel", kernel->string()},
                                              {"memory_bytes", spec.memory_bytes},
                                              {"boot_args", boot_args_of(spec)},
                                              {"boot_time_ms", boot_time_ms}});
  if (!made) return std::move(made).error();
  // The sandboxes take their RAM from this file as it is; its checksums are looked at by `verify` only.
  if (spec.fill_memory) return fill_memory_image(root() / "snapshots" / tag / "memory.bin", spec);
  return {};
}

result<std::vector<std::string>> bench_daemon::start_sandboxes(const std::string& tag, unsigned n) {
  auto list = client_->post("/v1/sandboxes", {{"snapshot_tag", tag}, {"n", n}});
  if (!list) return std::move(list).error();
  std::vector<std::string> ids;
  for (const json& item : *list) ids.push_back(item.value("id", ""));
  if (ids.size() == n) return ids;
  return error{errc::internal, 0, "asked for " + std::to_string(n) + " sandboxes, got " + std::to_string(ids.size())};
}

result<journal_view> bench_daemon::view(const std::string& sandbox) const {
  return journal_view::open(pid(), sandbox);
}

result<std::vector<journal_view>> bench_daemon::views(const std::vector<std::string>& sandboxes) const {
  std::vector<journal_view> all;
  for (const std::string& id : sandboxes) {
    auto one = view(id);
    if (!one && one.error().code == errc::unsupported) return std::vector<journal_view>();
    if (!one) return std::move(one).error();
    all.push_back(*std::move(one));
  }
  return all;
}

result<guest_protection> bench_daemon::protection(const std::string& sandbox) const {
  const auto info = client_->get("/v1/sandboxes/" + path_segment(sandbox));
  if (!info) return info.error();
  return guest_protection::open(pid(), info->value("pid", 0), sandbox);
}

result<void> bench_daemon::wait_until_filled(const std::string& sandbox, std::uint64_t working_set_bytes) const {
  auto journal = view(sandbox);
  if (!journal) return std::move(journal).error();
  const auto deadline = std::chrono::steady_clock::now() + fill_deadline;
  while (std::chrono::steady_clock::now() < deadline) {
    const auto now = journal->read();
    if (!now) return now.error();
    if (now->steps >= working_set_bytes / page_size) return {};
    std::this_thread::sleep_for(daemon_poll_interval);
  }
  return error{errc::deadline_exceeded, 0, "the guest " + sandbox + " has not written its working set in time"};
}

result<std::uint64_t> bench_daemon::verify(const std::string& tag) const {
  const auto report = client_->post("/v1/snapshots/" + tag + "/verify", json::object());
  if (!report) return report.error();
  const auto count = [&](const char* name) { return report->value(name, std::uint64_t{0}); };
  if (!report->value("is_journal", false) || count("journal_pages") == 0)
    return error{errc::corrupt, 0, tag + " is no image of the journal guest: nothing could be checked"};
  const std::uint64_t vmstate = report->value("vmstate_ok", false) ? 0 : 1;
  return count("future_pages") + count("lost_pages") + count("torn_pages") + count("gaps") + count("bad_chunks") +
         vmstate;
}

result<void> bench_daemon::remove_snapshot(const std::string& tag) const {
  const auto deadline = std::chrono::steady_clock::now() + removal_patience;
  for (;;) {
    auto removed = client_->remove("/v1/snapshots/" + tag);
    if (removed) return {};
    // In use for a moment: whoever used it has ended, and is being cleaned up.
    if (removed.error().code != errc::conflict || std::chrono::steady_clock::now() > deadline)
      return std::move(removed).error();
    std::this_thread::sleep_for(daemon_poll_interval);
  }
}

result<void> bench_daemon::remove_sandbox(const std::string& id) const {
  auto removed = client_->remove("/v1/sandboxes/" + path_segment(id));
  if (!removed) return std::move(removed).error();
  return {};
}

}  // namespace coppice::bench
