#include "bench/branch_cell.hpp"

#include <sched.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "bench/engine_run.hpp"
#include "bench/parsing.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;
using window = journal_monitor::window;

constexpr std::chrono::milliseconds poll_interval{20};  // a poll costs the daemon some of the time that is measured
constexpr std::chrono::milliseconds breath{20};  // between a disturbance and a measurement that it must not reach
constexpr unsigned bare_pauses_a_branch = 2;  // before each branch, so that what the machine does meanwhile is in both
// Between calls to the VMM that are measured, a branch's included. Made within 100 ms of the last, the same call takes
// half as long on some machines: here and in the VMM all that it needs is still at hand, which it isn't when a VM is
// branched now and then.
constexpr std::chrono::milliseconds rest{400};
constexpr std::size_t enough_for_p99 = 100;
constexpr std::chrono::milliseconds first_idle{20};       // when no branch has told yet how long one takes
constexpr std::chrono::milliseconds shortest_copying{5};  // that tells a speed
constexpr std::chrono::seconds ready_deadline{300};

constexpr double median_pause_target = 1.3, p99_pause_target = 4;  // times the bare calls
constexpr double median_stall_target = 2000, large_median_stall_target = 5000, p99_stall_target = 5000;
constexpr std::uint64_t small_working_set = 16 * mib;
constexpr double speed_target = 0.5;
constexpr double faults_target = 1.0 / 8;

double number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

double median_of(const std::vector<double>& values) {
  return summarize(values).median;
}
double p99_of(const std::vector<double>& values) {
  return summarize(values).p99;
}

// As the copy thread does: the guest comes first.
void give_way() {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
}

}  // namespace

result<void> branch_cell::run(unsigned branches) {
  auto vmm = plain_vmm::connect(daemon_.api_socket(sandbox_));
  if (!vmm) return std::move(vmm).error();
  vmm_ = std::make_unique<plain_vmm>(*std::move(vmm));
  // Without a view of its RAM nothing is known of the guest; the rest can be measured.
  if (auto view = daemon_.view(sandbox_)) monitor_ = std::make_unique<journal_monitor>(*std::move(view));
  if (auto protection = daemon_.protection(sandbox_)) {
    protection_ = *std::move(protection);
  } else {
    std::cerr << "no calls after a pre-arm are measured: " << protection.error().message() << std::endl;
  }
  COPPICE_TRY(measure(0));
  figures_ = {};
  for (unsigned number = 1; number <= branches; ++number) COPPICE_TRY(measure(number));
  return {};
}

result<void> branch_cell::measure(unsigned number) {
  if (monitor_) monitor_->forget();
  const auto idle = measure_idle();
  if (!idle) return idle.error();
  // Right before the branch, when what verified and removed the last image has come to rest.
  COPPICE_TRY(measure_bare());
  const std::string tag = mode_ + "-" + std::to_string(number);
  // Every other branch answers at the resume, which tells when its copy began; the others tell when it was ready.
  const bool wait = number % 2 == 1;
  auto made = branch(tag, wait);
  if (!made) return std::move(made).error();
  last_branch_ = made->ready - made->asked;
  note_info(made->info);
  if (wait) figures_.ready_ms.push_back(std::chrono::duration<double, std::milli>(last_branch_).count());
  if (monitor_) {
    const auto whole = monitor_->between(made->asked, made->ready);
    if (!whole) return whole.error();
    note_stall(*whole, figures_.stall);
    if (!wait) COPPICE_TRY(note_copy_window(*made, idle->steps_per_s));
  }
  COPPICE_TRY(measure_armed_bare());
  const auto bad = daemon_.verify(tag);
  if (!bad) return bad.error();
  bad_pages_ += static_cast<double>(*bad);
  COPPICE_TRY(daemon_.remove_snapshot(tag));
  if (mode_ != "live") return {};
  return number % 2 == 0 ? measure_plain_copy(beside::nothing, figures_.copied_plainly)
                         : measure_plain_copy(beside::digests, figures_.digested_plainly);
}

result<void> branch_cell::measure_bare() {
  for (unsigned i = 0; i < bare_pauses_a_branch; ++i) {
    std::this_thread::sleep_for(rest);
    COPPICE_TRY(figures_.bare.measure(*vmm_));
    std::this_thread::sleep_for(breath);
    COPPICE_TRY(figures_.repeated_bare.measure(*vmm_));
  }
  std::this_thread::sleep_for(rest);
  return {};
}

result<void> branch_cell::measure_armed_bare() {
  if (!protection_ || mode_ != "live") return {};
  COPPICE_TRY(protection_->protect(journal::lanes_address + spec_.working_set_bytes));
  auto measured_bare = figures_.armed_bare.measure(*vmm_);
  COPPICE_TRY(protection_->lift());
  return measured_bare;
}

result<void> branch_cell::measure_plain_copy(beside what, plain_copy& into) {
  if (!monitor_ || !direct_io_works_) return {};
  const auto idle = measure_idle();
  if (!idle) return idle.error();
  std::this_thread::sleep_for((bare_pauses_a_branch + 1) * rest);  // as long as before a branch
  const temporary_file image(daemon_.scratch_file("plain-copy"));
  result<double> written{0.0};
  const auto begin = clock::now();
  std::thread([&] {
    give_way();
    written = direct_seconds(monitor_->ram(), image.path(), what);
  }).join();
  const auto end = clock::now();
  if (!written) {
    direct_io_works_ = false;
    std::cerr << "no plain copy is measured: " << written.error().message() << std::endl;
    return {};
  }
  const auto seen = monitor_->between(begin, end);
  if (!seen) return seen.error();
  note_stall(*seen, into.stall_us);
  if (idle->steps_per_s > 0) into.to_idle_speed.push_back(seen->steps_per_s / idle->steps_per_s);
  return {};
}

result<window> branch_cell::measure_idle() {
  if (!monitor_) return window{};
  const clock::duration length = last_branch_ > clock::duration::zero() ? last_branch_ : first_idle;
  std::this_thread::sleep_for(breath);
  const auto begin = clock::now();
  std::this_thread::sleep_for(length);
  auto idle = monitor_->between(begin, begin + length);
  if (!idle) return idle;
  note_stall(*idle, figures_.idle_stall);
  figures_.idle_steps_per_s.push_back(idle->steps_per_s);
  return idle;
}

void branch_cell::note_stall(const window& seen, std::vector<double>& into) {
  into.push_back(seen.longest_stall_us);
  figures_.unseen_stalls += seen.unseen_stalls;
}

result<branch_cell::one_branch> branch_cell::branch(const std::string& tag, bool wait) {
  one_branch made;
  made.asked = clock::now();
  auto answer = daemon_.client().post("/v1/sandboxes/" + path_segment(sandbox_) + "/branch",
                                      {{"tag", tag}, {"mode", mode_}, {"wait", wait}});
  made.answered = clock::now();
  if (!answer) return std::move(answer).error();
  made.info = *std::move(answer);
  while (made.info.value("status", "") == "writing" && clock::now() - made.asked < ready_deadline) {
    std::this_thread::sleep_for(poll_interval);
    auto now = daemon_.client().get("/v1/snapshots/" + tag + "/info");
    if (!now) return std::move(now).error();
    made.info = *std::move(now);
  }
  made.ready = clock::now();
  if (made.info.value("status", "") == "ready") return made;
  return error{errc::internal, 0, "branch " + tag + " did not become ready: " + made.info.dump()};
}

void branch_cell::note_info(const json& info) {
  const json pause = info.value("pause", json::object());
  figures_.pause.push_back(number(pause, "pause_us"));
  figures_.snapshot.push_back(number(pause, "snapshot_us"));
  figures_.resume.push_back(number(pause, "resume_us"));
  figures_.total.push_back(number(pause, "total_us"));
  const auto copy = info.find("copy");
  if (copy == info.end()) return;  // full and diff: the VMM copies
  const auto mebibytes = [&](const char* name) { return number(*copy, name) / static_cast<double>(mib); };
  figures_.rearm.push_back(number(pause, "rearm_us"));
  figures_.faults.push_back(number(*copy, "faults"));
  figures_.longest_fault.push_back(number(*copy, "longest_fault_us"));
  figures_.bulk_mib.push_back(mebibytes("bulk_bytes"));
  figures_.captured_mib.push_back(mebibytes("captured_bytes"));
  figures_.zero_mib.push_back(mebibytes("zero_bytes"));
  figures_.hole_mib.push_back(mebibytes("hole_bytes"));
  figures_.prearm.push_back(number(*copy, "prearm_us"));
  if (const double us = number(*copy, "copy_us"); us > 0) {
    figures_.copy.push_back(us);
    figures_.copy_gb_per_s.push_back(number(*copy, "written_bytes") / us / 1e3);
  }
}

// The copy began when the branch was answered, and took as long as the daemon says.
result<void> branch_cell::note_copy_window(const one_branch& which, double idle_steps_per_s) {
  const json copy = which.info.value("copy", json::object());
  const auto length = std::chrono::microseconds(static_cast<std::int64_t>(number(copy, "copy_us")));
  if (length < shortest_copying || idle_steps_per_s == 0) return {};
  const auto end = std::min(which.answered + length, which.ready);
  const auto copying = monitor_->between(which.answered, end);
  if (!copying) return copying.error();
  figures_.copy_steps_per_s.push_back(copying->steps_per_s);
  figures_.speed_ratio.push_back(copying->steps_per_s / idle_steps_per_s);
  const auto whole = monitor_->between(which.asked, end);
  if (!whole) return whole.error();
  if (bare_fault_us_ > 0 && whole->steps > 0) {
    const double step_us = 1e6 / idle_steps_per_s;
    const double faults_a_step = number(copy, "faults") / whole->steps;
    figures_.speed_at_bare_faults.push_back(step_us / (step_us + faults_a_step * bare_fault_us_));
  }
  if (spec_.pattern != "sequential") return {};
  // One step after the other dirties another page, until the working set is through.
  const double dirtied = std::min(whole->steps, static_cast<double>(spec_.working_set_bytes) / page_size);
  if (dirtied > 0) figures_.faults_per_dirtied.push_back(number(copy, "faults") / dirtied);
  return {};
}

void branch_cell::add_to(report& to) const {
  const std::string cell =
      short_size(spec_.memory_bytes) + "/" + short_size(spec_.working_set_bytes) + "/" + spec_.pattern + "/" + mode_;
  add_pause(to, cell);
  add_stall(to, cell);
  if (mode_ == "live") add_copy(to, cell);
  to.add({cell, "ready_ms", better::lower, figures_.ready_ms});
  to.add({cell, "bad_pages", better::lower, {bad_pages_}, never()});
}

void branch_cell::add_pause(report& to, const std::string& cell) const {
  const measured& f = figures_;
  to.add({cell, "total_us", better::lower, f.total});
  to.add({cell, "pause_us", better::lower, f.pause});
  to.add({cell, "snapshot_us", better::lower, f.snapshot});
  to.add({cell, "rearm_us", better::lower, f.rearm});
  to.add({cell, "resume_us", better::lower, f.resume});
  f.bare.add_to(to, cell, "bare",
                "the three API calls of a plain loop, guest running freely, after a rest as a branch");
  f.repeated_bare.add_to(to, cell, "repeated_bare", "the same, 20 ms after those");
  f.armed_bare.add_to(to, cell, "armed_bare", "the same right after all RAM was write-protected");
  if (mode_ == "live") add_pause_to_bare(to, cell);
}

void branch_cell::add_pause_to_bare(report& to, const std::string& cell) const {
  const measured& f = figures_;
  const double bare = median_of(f.bare.sum);
  const std::string to_bare = "to the median of " + std::to_string(f.bare.sum.size()) + " bare_sum_us of this cell";
  to.add({cell,
          "median_total_to_bare",
          better::lower,
          {median_of(f.total) / bare},
          at_most(median_pause_target),
          to_bare});
  to.add({cell,
          "p99_total_to_bare",
          better::lower,
          {p99_of(f.total) / bare},
          judged_from(enough_for_p99, f.total.size(), "branches", at_most(p99_pause_target)),
          to_bare});
  to.add({cell,
          "median_total_to_repeated_bare",
          better::lower,
          {median_of(f.total) / median_of(f.repeated_bare.sum)},
          std::nullopt,
          "of medians"});
  if (f.armed_bare.sum.empty()) return;
  const auto to_floor = [&](const char* name, const std::vector<double>& ours, const std::vector<double>& floor) {
    to.add({cell, name, better::lower, {median_of(ours) / median_of(floor)}, std::nullopt, "of medians, to the floor"});
  };
  to_floor("median_total_to_armed_bare", f.total, f.armed_bare.sum);
  to_floor("median_pause_to_armed_bare", f.pause, f.armed_bare.pause);
  to_floor("median_snapshot_to_armed_bare", f.snapshot, f.armed_bare.snapshot);
  to_floor("median_resume_to_armed_bare", f.resume, f.armed_bare.resume);
}

void branch_cell::add_stall(report& to, const std::string& cell) const {
  const measured& f = figures_;
  if (f.stall.empty()) return;
  to.add({cell, "stall_us", better::lower, f.stall});
  to.add(
      {cell, "idle_stall_us", better::lower_baseline, f.idle_stall, std::nullopt, "windows as long as the branches"});
  to.add({cell,
          "unseen_stalls",
          better::lower,
          {f.unseen_stalls},
          at_most(0),
          "overwritten by the guest before the bench read them, in all these windows"});
  if (mode_ != "live") return;
  to.add({cell, "plain_copy_stall_us", better::lower_baseline, f.copied_plainly.stall_us, std::nullopt,
          "a plain loop writes all RAM by O_DIRECT, nothing is protected"});
  to.add({cell, "plain_digests_stall_us", better::lower_baseline, f.digested_plainly.stall_us, std::nullopt,
          "the same, the loop looks for zero pages and digests, too"});
  const bool small = spec_.working_set_bytes <= small_working_set;
  // A small working set is judged where it is written at random, a large one always.
  const auto wanted = [&](double limit) {
    return !small || spec_.pattern == "random" ? std::optional(at_most(limit)) : std::nullopt;
  };
  const double idle = median_of(f.idle_stall);
  to.add({cell,
          "median_stall_above_idle_us",
          better::lower,
          {median_of(f.stall) - idle},
          wanted(small ? median_stall_target : large_median_stall_target)});
  std::optional<target> p99_wanted = small ? wanted(p99_stall_target) : std::nullopt;
  if (p99_wanted) p99_wanted = judged_from(enough_for_p99, f.stall.size(), "branches", *p99_wanted);
  to.add({cell, "p99_stall_above_median_idle_us", better::lower, {p99_of(f.stall) - idle}, std::move(p99_wanted)});
  to.add({cell, "p99_stall_above_p99_idle_us", better::lower, {p99_of(f.stall) - p99_of(f.idle_stall)}});
}

void branch_cell::add_copy(report& to, const std::string& cell) const {
  const measured& f = figures_;
  to.add({cell, "idle_steps_per_s", better::higher_baseline, f.idle_steps_per_s});
  to.add({cell, "copy_steps_per_s", better::higher, f.copy_steps_per_s});
  to.add({cell, "copy_to_idle_speed", better::higher, f.speed_ratio, at_least(speed_target)});
  to.add({cell, "speed_at_bare_faults", better::higher_baseline, f.speed_at_bare_faults, std::nullopt,
          "what copy_to_idle_speed would be if the faults were all, each as long as bare_fault_us"});
  to.add({cell, "plain_copy_to_idle_speed", better::higher_baseline, f.copied_plainly.to_idle_speed});
  to.add({cell, "plain_digests_to_idle_speed", better::higher_baseline, f.digested_plainly.to_idle_speed});
  to.add({cell, "prearm_us", better::lower, f.prearm});
  to.add({cell, "copy_us", better::lower, f.copy});
  to.add({cell, "copy_gb_per_s", better::higher, f.copy_gb_per_s});
  to.add({cell, "faults", better::lower, f.faults});
  to.add({cell, "faults_per_page_dirtied", better::lower, f.faults_per_dirtied, at_most(faults_target)});
  to.add({cell, "longest_fault_us", better::lower, f.longest_fault});
  to.add({cell, "bulk_mib", better::higher, f.bulk_mib});
  to.add({cell, "captured_mib", better::lower, f.captured_mib});
  to.add({cell, "zero_mib", better::lower_baseline, f.zero_mib});
  to.add({cell, "hole_mib", better::lower_baseline, f.hole_mib});
}

}  // namespace coppice::bench
