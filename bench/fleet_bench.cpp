#include "bench/fleet_bench.hpp"

#include <algorithm>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/fleet_load.hpp"
#include "bench/process_usage.hpp"

namespace coppice::bench {
namespace {

using clock = std::chrono::steady_clock;

constexpr unsigned sandboxes_a_call = 20;
constexpr std::chrono::seconds settle_time{2};
constexpr std::chrono::seconds idle_time{10};
constexpr std::uint64_t working_set = 1 * mib;

constexpr double pause_target_us = 5000;
constexpr double idle_cpu_target = 1;      // percent of a core
constexpr double memory_target_kib = 100;  // an instance

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
  result<void> start_instances();
  result<void> measure_idle();
  void add_load(report& to, const load_results& load) const;

  const fleet_options& options_;
  bench_daemon& daemon_;
  std::vector<std::string> sandboxes_;
  double start_ms_an_instance_ = 0;
  double kib_an_instance_ = 0;
  double idle_cpu_ = 0, busy_cpu_ = 0;
  double rss_growth_kib_ = 0;  // over the load
  std::vector<double> idle_stall_us_;
};

result<void> fleet_bench::start_instances() {
  COPPICE_TRY(
      daemon_.make_base("base", {.memory_bytes = options_.memory_bytes,
                                 .working_set_bytes = std::min(working_set, largest_working_set(options_.memory_bytes)),
                                 .rest_us = static_cast<std::uint64_t>(options_.rest.count()) * 1000,
                                 .fill_memory = true}));
  // The first instance brings what is needed once.
  auto first = daemon_.start_sandboxes("base", 1);
  if (!first) return std::move(first).error();
  sandboxes_ = *std::move(first);
  const auto before = own_memory_of(daemon_.pid());
  if (!before) return before.error();
  const auto begin = clock::now();
  while (sandboxes_.size() < options_.instances) {
    const auto left = static_cast<unsigned>(options_.instances - sandboxes_.size());
    auto made = daemon_.start_sandboxes("base", std::min(left, sandboxes_a_call));
    if (!made) return std::move(made).error();
    sandboxes_.insert(sandboxes_.end(), made->begin(), made->end());
  }
  if (options_.instances < 2) return {};
  const double started = static_cast<double>(options_.instances - 1);
  start_ms_an_instance_ = std::chrono::duration<double, std::milli>(clock::now() - begin).count() / started;
  std::this_thread::sleep_for(settle_time);
  const auto after = own_memory_of(daemon_.pid());
  if (!after) return after.error();
  kib_an_instance_ = (static_cast<double>(*after) - static_cast<double>(*before)) / static_cast<double>(kib) / started;
  return {};
}

// CPU of the daemon while nothing is asked of it, and what the guests feel meanwhile.
result<void> fleet_bench::measure_idle() {
  std::vector<std::pair<journal_view, journal_reading>> watched;
  for (const std::string& id : sandboxes_) {
    auto view = daemon_.view(id);
    if (!view) break;
    const auto now = view->read();
    if (now) watched.emplace_back(*std::move(view), *now);
  }
  const cpu_meter cpu(daemon_.pid());
  // As long as a branch takes; the same window for each guest's stall.
  constexpr std::chrono::milliseconds stall_window{50};
  std::this_thread::sleep_for(stall_window);
  for (const auto& [view, before] : watched) {
    if (const auto after = view.read(before))
      idle_stall_us_.push_back(std::chrono::duration<double, std::micro>(after->longest_stall).count());
  }
  std::this_thread::sleep_for(idle_time - stall_window);
  const auto used = cpu.percent();
  if (!used) return used.error();
  idle_cpu_ = *used;
  return {};
}

result<void> fleet_bench::run(report& to) {
  std::cerr << "starting " << options_.instances << " instances" << std::endl;
  COPPICE_TRY(start_instances());
  COPPICE_TRY(measure_idle());
  std::cerr << "branching them, " << options_.rate << " times a second" << std::endl;
  const auto memory_before = own_memory_of(daemon_.pid());
  if (!memory_before) return memory_before.error();
  const cpu_meter cpu(daemon_.pid());
  fleet_load load(daemon_, options_, sandboxes_);
  const auto results = load.run();
  if (!results) return results.error();
  const auto used = cpu.percent();
  if (!used) return used.error();
  busy_cpu_ = *used;
  const auto memory_after = own_memory_of(daemon_.pid());
  if (!memory_after) return memory_after.error();
  rss_growth_kib_ =
      (static_cast<double>(*memory_after) - static_cast<double>(*memory_before)) / static_cast<double>(kib);
  if (!results->first_failure.empty()) std::cerr << "the first failure: " << results->first_failure << '\n';
  add_load(to, *results);
  return {};
}

void fleet_bench::add_load(report& to, const load_results& load) const {
  to.add({"", "branches_asked", better::higher_baseline, {static_cast<double>(load.asked)}});
  to.add({"", "branches_done", better::higher, {static_cast<double>(load.done)}});
  to.add({"", "branches_failed", better::lower, {static_cast<double>(load.failed)}, at_most(0)});
  to.add({"", "pause_us", better::lower, load.pause_us});
  if (!load.pause_us.empty())
    to.add({"", "p99_pause_us", better::lower, {summarize(load.pause_us).p99}, at_most(pause_target_us)});
  to.add({"", "stall_us", better::lower, load.stall_us});
  to.add({"", "idle_stall_us", better::lower_baseline, idle_stall_us_});
  to.add({"", "ready_ms", better::lower, load.ready_ms});
  to.add({"", "asked_late_ms", better::lower, load.late_ms});
  to.add({"", "daemon_idle_cpu_percent", better::lower, {idle_cpu_}, at_most(idle_cpu_target)});
  to.add({"", "daemon_busy_cpu_percent", better::lower, {busy_cpu_}});
  to.add({"", "daemon_kib_an_instance", better::lower, {kib_an_instance_}, at_most(memory_target_kib)});
  to.add({"", "daemon_growth_under_load_kib", better::lower, {rss_growth_kib_}});
  to.add({"", "start_ms_an_instance", better::lower, {start_ms_an_instance_}});
  to.add({"", "images_verified", better::higher_baseline, {static_cast<double>(load.verified)}});
  to.add({"", "bad_pages", better::lower, {static_cast<double>(load.bad_pages)}, never()});
}

}  // namespace

result<void> run_fleet_bench(const fleet_options& options, report& to, nlohmann::json& environment) {
  auto daemon = bench_daemon::start(options.root, options.vmm);
  if (!daemon) return std::move(daemon).error();
  environment["vmm"] = (*daemon)->vmm();
  fleet_bench bench(options, **daemon);
  return bench.run(to);
}

}  // namespace coppice::bench
