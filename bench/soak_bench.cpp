#include "bench/soak_bench.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iostream>
#include <mutex>
#include <thread>

#include "base/units.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/process_usage.hpp"

namespace coppice::bench {
namespace {

// The first never rests; the others leave it the time to be as fast as it can.
const std::vector<guest_spec>& guests() {
  static const std::vector<guest_spec> all = {
      {.memory_bytes = 256 * mib, .working_set_bytes = 16 * mib, .pattern = "random", .fill_memory = false},
      {.memory_bytes = 64 * mib, .working_set_bytes = 32 * mib, .pattern = "sequential", .rest_us = 20},
      {.memory_bytes = 512 * mib,
       .working_set_bytes = 128 * mib,
       .pattern = "zipf",
       .rest_us = 50,
       .fill_memory = false},
  };
  return all;
}

constexpr double growth_target_kib = 4096;  // of the daemon's own memory
constexpr std::chrono::seconds letting_go_deadline{10};
constexpr std::chrono::milliseconds soak_poll_interval{50};
constexpr int looks_for_rest = 10;

// What the daemon holds.
struct holdings {
  double memory_kib = 0, threads = 0, files = 0;
};

result<holdings> holdings_of(pid_t pid) {
  const auto memory = own_memory_of(pid), threads = threads_of(pid), files = open_files_of(pid);
  for (const auto* each : {&memory, &threads, &files}) {
    if (!*each) return each->error();
  }
  return holdings{static_cast<double>(*memory) / static_cast<double>(kib), static_cast<double>(*threads),
                  static_cast<double>(*files)};
}

// The least that it holds within half a second: what the last branches held may not be closed yet.
result<holdings> holdings_at_rest(pid_t pid) {
  auto least = holdings_of(pid);
  for (int looks = 1; least && looks < looks_for_rest; ++looks) {
    std::this_thread::sleep_for(soak_poll_interval);
    const auto now = holdings_of(pid);
    if (!now) return now.error();
    least->memory_kib = std::min(least->memory_kib, now->memory_kib);
    least->threads = std::min(least->threads, now->threads);
    least->files = std::min(least->files, now->files);
  }
  return least;
}

// Once it holds no more threads and files than before, or won't let go of them.
result<holdings> holdings_after(pid_t pid, const holdings& before) {
  const auto deadline = std::chrono::steady_clock::now() + letting_go_deadline;
  for (;;) {
    auto now = holdings_of(pid);
    if (!now || (now->threads <= before.threads && now->files <= before.files)) return now;
    if (std::chrono::steady_clock::now() > deadline) return now;
    std::this_thread::sleep_for(soak_poll_interval);
  }
}

struct soak_results {
  std::vector<double> pause_us, under_way;
  unsigned failed = 0;
  std::string first_failure;
  std::uint64_t bad_pages = 0;
};

class soak_bench {
 public:
  soak_bench(const soak_options& options, bench_daemon& daemon) : options_(options), daemon_(daemon) {}
  result<void> run(report& to);

 private:
  result<void> start_guests();
  // Branches number `begin` to before `end`, `overlap` at a time. Returns when all have ended.
  void run_branches(unsigned begin, unsigned end);
  void branch(unsigned number);
  result<std::uint64_t> gaps_of_guests() const;

  const soak_options& options_;
  bench_daemon& daemon_;
  std::vector<std::string> sandboxes_;
  std::atomic<unsigned> under_way_{0};
  std::mutex mutex_;
  soak_results results_;
};

result<void> soak_bench::start_guests() {
  for (std::size_t i = 0; i < guests().size(); ++i) {
    const std::string tag = "base-" + std::to_string(i);
    COPPICE_TRY(daemon_.make_base(tag, guests()[i]));
    auto made = daemon_.start_sandboxes(tag, 1);
    if (!made) return std::move(made).error();
    sandboxes_.push_back(made->front());
  }
  return {};
}

void soak_bench::run_branches(unsigned begin, unsigned end) {
  std::atomic<unsigned> next{begin};
  std::vector<std::thread> askers;
  for (unsigned i = 0; i < options_.overlap; ++i) {
    askers.emplace_back([&] {
      for (unsigned number = next++; number < end; number = next++) branch(number);
    });
  }
  for (std::thread& each : askers) each.join();
}

void soak_bench::branch(unsigned number) {
  // As many in a row of one VM as are under way at once: so they overlap.
  const std::string& sandbox = sandboxes_[number / options_.overlap % sandboxes_.size()];
  const std::string tag = "soak-" + std::to_string(number);
  ++under_way_;
  const auto info =
      daemon_.client().post("/v1/sandboxes/" + path_segment(sandbox) + "/branch", {{"tag", tag}, {"mode", "live"}});
  const unsigned under_way = under_way_--;
  const auto bad = info ? daemon_.verify(tag) : result<std::uint64_t>(info.error());
  const auto removed = bad ? daemon_.remove_snapshot(tag) : result<void>(bad.error());
  const std::lock_guard lock(mutex_);
  if (number % 100 == 0) std::cerr << number << " of " << options_.branches << " branches" << std::endl;
  if (bad) results_.bad_pages += *bad;
  if (removed) {
    results_.pause_us.push_back((*info)["pause"].value("total_us", 0.0));
    results_.under_way.push_back(under_way);
    return;
  }
  ++results_.failed;
  if (results_.first_failure.empty()) results_.first_failure = tag + ": " + removed.error().message();
}

// Over all guests, each of which must still run. Errors: internal (one stands still).
result<std::uint64_t> soak_bench::gaps_of_guests() const {
  std::uint64_t gaps = 0;
  for (const std::string& id : sandboxes_) {
    const std::string path = "/v1/sandboxes/" + path_segment(id) + "/journal";
    const auto before = daemon_.client().get(path);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    auto after = before;
    while (before && after && (*after)["steps"] <= (*before)["steps"]) {
      if (std::chrono::steady_clock::now() > deadline) return error{errc::internal, 0, "guest " + id + " stands still"};
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      after = daemon_.client().get(path);
    }
    if (!after) return after.error();
    gaps += after->value("gaps", std::uint64_t{0});
  }
  return gaps;
}

result<void> soak_bench::run(report& to) {
  COPPICE_TRY(start_guests());
  const unsigned warm_up = options_.branches / 10;
  run_branches(0, warm_up);
  const auto before = holdings_at_rest(daemon_.pid());
  if (!before) return before.error();
  run_branches(warm_up, options_.branches);
  const auto after = holdings_after(daemon_.pid(), *before);
  if (!after) return after.error();
  const auto gaps = gaps_of_guests();
  if (!gaps) return gaps.error();
  if (!results_.first_failure.empty()) std::cerr << "the first failure: " << results_.first_failure << '\n';
  to.add({"", "branches_done", better::higher_baseline, {static_cast<double>(results_.pause_us.size())}});
  to.add({"", "branches_failed", better::lower, {static_cast<double>(results_.failed)}, never()});
  to.add({"", "bad_pages", better::lower, {static_cast<double>(results_.bad_pages)}, never()});
  to.add({"", "gaps", better::lower, {static_cast<double>(*gaps)}, never()});
  to.add({"", "branches_under_way", better::higher_baseline, results_.under_way, std::nullopt,
          "when one was ready, itself included"});
  to.add({"", "pause_us", better::lower, results_.pause_us});
  to.add({"", "daemon_memory_kib", better::lower, {after->memory_kib}});
  to.add({"",
          "daemon_growth_kib",
          better::lower,
          {after->memory_kib - before->memory_kib},
          at_most(growth_target_kib),
          "RssAnon, from after the first tenth of the branches to the end"});
  to.add({"", "thread_growth", better::lower, {after->threads - before->threads}, at_most(0)});
  to.add({"", "open_file_growth", better::lower, {after->files - before->files}, at_most(0)});
  return {};
}

}  // namespace

result<void> run_soak_bench(const soak_options& options, report& to, nlohmann::json& environment) {
  auto daemon = bench_daemon::start(options.root, options.vmm, options.limits);
  if (!daemon) return std::move(daemon).error();
  environment["vmm"] = (*daemon)->vmm();
  return soak_bench(options, **daemon).run(to);
}

}  // namespace coppice::bench
