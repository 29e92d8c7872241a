#include "bench/fleet_bench.hpp"

#include <algorithm>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "bench/bare_pauses.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/fleet_load.hpp"
#include "bench/process_usage.hpp"

namespace coppice::bench {
namespace {

using clock = std::chrono::steady_clock;

constexpr unsigned sandboxes_a_call = 20;
constexpr std::chrono::seconds settle_time{2};
constexpr unsigned bare_pauses_a_time = 50;  // before the load, and as many after it
constexpr unsigned most_idle_windows = 50;
constexpr std::uint64_t working_set = 1 * mib;

constexpr double pause_target_us = 5000;
constexpr std::size_t enough_for_p99 = 100;
constexpr double idle_cpu_target = 1;      // percent of a core
constexpr double memory_target_kib = 100;  // a sandbox

// CPU use of a process from its construction on.
class cpu_meter {
 public:
  explicit cpu_meter(pid_t pid) : pid_(pid), used_(cpu_time_of(pid)), begin_(clock::now()) {}
  // In percent of one core.
  result<double> percent() const {
    const auto now = cpu_time_of(pid_);
    if (!used_) return used_.error();
    if (!now) return now.error();
    return (*now - *used_) / std::chrono::duration<double>(clock::now() - begin_) * 100;
  }

 private:
  pid_t pid_;
  result<std::chrono::duration<double>> used_;
  clock::time_point begin_;
};

class fleet_bench {
 public:
  fleet_bench(const fleet_options& options, bench_daemon& daemon) : options_(options), daemon_(daemon) {}
  result<void> run(report& to);

 private:
  result<void> start_sandboxes();
  result<load_results> branch_for(std::chrono::milliseconds duration, const std::string& name) const;
  result<void> measure_bare();
  result<void> measure_idle_cpu();
  result<void> measure_idle_stalls(std::size_t samples, double window_ms);
  result<void> measure_load(report& to);
  void note_failures(const load_results& load);
  void add_load(report& to, const load_results& load) const;

  const fleet_options& options_;
  bench_daemon& daemon_;
  std::vector<std::string> sandboxes_;
  double start_ms_a_sandbox_ = 0;
  double kib_a_sandbox_ = 0;
  double idle_cpu_ = 0, busy_cpu_ = 0;
  double rss_growth_kib_ = 0;          // over the load
  double failed_ = 0, bad_pages_ = 0;  // the warm-up's, too
  std::vector<double> idle_stall_us_;
  bare_pauses bare_;
};

result<void> fleet_bench::start_sandboxes() {
  COPPICE_TRY(
      daemon_.make_base("base", {.memory_bytes = options_.memory_bytes,
                                 .working_set_bytes = std::min(working_set, largest_working_set(options_.memory_bytes)),
                                 .rest_us = static_cast<std::uint64_t>(options_.rest.count()) * 1000,
                                 .fill_memory = true}));
  // The first sandbox brings what is needed once.
  auto first = daemon_.start_sandboxes("base", 1);
  if (!first) return std::move(first).error();
  sandboxes_ = *std::move(first);
  const auto before = own_memory_of(daemon_.pid());
  if (!before) return before.error();
  const auto begin = clock::now();
  while (sandboxes_.size() < options_.sandboxes) {
    const auto left = static_cast<unsigned>(options_.sandboxes - sandboxes_.size());
    auto made = daemon_.start_sandboxes("base", std::min(left, sandboxes_a_call));
    if (!made) return std::move(made).error();
    sandboxes_.insert(sandboxes_.end(), made->begin(), made->end());
  }
  if (options_.sandboxes < 2) return {};
  const double started = static_cast<double>(options_.sandboxes - 1);
  start_ms_a_sandbox_ = std::chrono::duration<double, std::milli>(clock::now() - begin).count() / started;
  std::this_thread::sleep_for(settle_time);
  const auto after = own_memory_of(daemon_.pid());
  if (!after) return after.error();
  kib_a_sandbox_ = (static_cast<double>(*after) - static_cast<double>(*before)) / static_cast<double>(kib) / started;
  return {};
}

void fleet_bench::note_failures(const load_results& load) {
  failed_ += load.failed;
  bad_pages_ += static_cast<double>(load.bad_pages);
  if (!load.first_failure.empty()) std::cerr << "the first failure: " << load.first_failure << '\n';
}

result<load_results> fleet_bench::branch_for(std::chrono::milliseconds duration, const std::string& name) const {
  fleet_options options = options_;
  options.duration = duration;
  return fleet_load(daemon_, std::move(options), sandboxes_, name).run();
}

// The three API calls of a plain loop, to one idle sandbox after the other.
result<void> fleet_bench::measure_bare() {
  for (unsigned i = 0; i < bare_pauses_a_time; ++i) {
    auto vmm = plain_vmm::connect(daemon_.api_socket(sandboxes_[i % sandboxes_.size()]));
    if (!vmm) return std::move(vmm).error();
    COPPICE_TRY(bare_.measure(*vmm));
  }
  return {};
}

// Of the daemon, while nothing is asked of it.
result<void> fleet_bench::measure_idle_cpu() {
  const cpu_meter cpu(daemon_.pid());
  std::this_thread::sleep_for(options_.idle);
  const auto used = cpu.percent();
  if (!used) return used.error();
  idle_cpu_ = *used;
  return {};
}

// At least `samples` windows of that length, of all guests at once, while nothing is asked of the daemon.
result<void> fleet_bench::measure_idle_stalls(std::size_t samples, double window_ms) {
  const auto views = daemon_.views(sandboxes_);
  if (!views) return views.error();
  for (unsigned round = 0; round < most_idle_windows && !views->empty() && idle_stall_us_.size() < samples; ++round) {
    std::vector<journal_reading> before;
    for (const journal_view& view : *views) {
      const auto now = view.read();
      if (!now) return now.error();
      before.push_back(*now);
    }
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(window_ms));
    for (std::size_t i = 0; i < views->size(); ++i) {
      const auto after = (*views)[i].read(before[i]);
      if (!after) return after.error();
      idle_stall_us_.push_back(std::chrono::duration<double, std::micro>(after->longest_stall).count());
    }
  }
  return {};
}

result<void> fleet_bench::measure_load(report& to) {
  const auto memory_before = own_memory_of(daemon_.pid());
  if (!memory_before) return memory_before.error();
  const cpu_meter cpu(daemon_.pid());
  const auto results = branch_for(options_.duration, "fleet");
  if (!results) return results.error();
  const auto used = cpu.percent();
  if (!used) return used.error();
  busy_cpu_ = *used;
  const auto memory_after = own_memory_of(daemon_.pid());
  if (!memory_after) return memory_after.error();
  rss_growth_kib_ =
      (static_cast<double>(*memory_after) - static_cast<double>(*memory_before)) / static_cast<double>(kib);
  note_failures(*results);
  std::this_thread::sleep_for(settle_time);
  COPPICE_TRY(measure_bare());
  COPPICE_TRY(measure_idle_stalls(results->stall_us.size(), summarize(results->ready_ms).median));
  add_load(to, *results);
  return {};
}

result<void> fleet_bench::run(report& to) {
  std::cerr << "starting " << options_.sandboxes << " sandboxes" << std::endl;
  COPPICE_TRY(start_sandboxes());
  const auto warm_up = branch_for(options_.warm_up, "warm-up");
  if (!warm_up) return warm_up.error();
  note_failures(*warm_up);
  std::this_thread::sleep_for(settle_time);
  COPPICE_TRY(measure_idle_cpu());
  COPPICE_TRY(measure_bare());
  std::cerr << "branching them, " << options_.rate << " times a second" << std::endl;
  return measure_load(to);
}

void fleet_bench::add_load(report& to, const load_results& load) const {
  to.add({"", "branches_asked", better::higher_baseline, {static_cast<double>(load.asked)}});
  to.add({"", "branches_done", better::higher, {static_cast<double>(load.done)}});
  to.add({"", "branches_failed", better::lower, {failed_}, never(), "the warm-up's included"});
  to.add({"", "pause_us", better::lower, load.pause_us});
  if (!load.pause_us.empty())
    to.add({"",
            "p99_pause_us",
            better::lower,
            {summarize(load.pause_us).p99},
            judged_from(enough_for_p99, load.pause_us.size(), "branches", at_most(pause_target_us))});
  bare_.add_to(to, "", "bare", "the three API calls of a plain loop, to idle sandboxes, before and after the load");
  if (!load.pause_us.empty()) {
    const double ratio = summarize(load.pause_us).median / summarize(bare_.sum).median;
    to.add({"", "median_pause_to_bare", better::lower, {ratio}});
  }
  to.add({"", "stall_us", better::lower, load.stall_us});
  to.add({"", "idle_stall_us", better::lower_baseline, idle_stall_us_, std::nullopt,
          "windows as long as the median branch took"});
  to.add({"", "ready_ms", better::lower, load.ready_ms});
  to.add({"", "asked_late_ms", better::lower, load.late_ms});
  to.add({"", "daemon_idle_cpu_percent", better::lower, {idle_cpu_}, at_most(idle_cpu_target)});
  to.add({"", "daemon_busy_cpu_percent", better::lower, {busy_cpu_}});
  to.add({"", "daemon_kib_a_sandbox", better::lower, {kib_a_sandbox_}, at_most(memory_target_kib)});
  to.add({"", "daemon_growth_under_load_kib", better::lower, {rss_growth_kib_}});
  to.add({"", "start_ms_a_sandbox", better::lower, {start_ms_a_sandbox_}});
  to.add({"", "images_verified", better::higher_baseline, {static_cast<double>(load.verified)}});
  to.add({"", "bad_pages", better::lower, {bad_pages_}, never()});
}

}  // namespace

result<void> run_fleet_bench(const fleet_options& options, report& to, nlohmann::json& environment) {
  auto daemon = bench_daemon::start(options.root, options.vmm, options.limits);
  if (!daemon) return std::move(daemon).error();
  environment["vmm"] = (*daemon)->vmm();
  fleet_bench bench(options, **daemon);
  return bench.run(to);
}

}  // namespace coppice::bench
