#include "copy_engine/copy_priority.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace coppice {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// Who hurries is to have a CPU of its own, not one of a vCPU's: at the lowest weight, that has its CPU back at once
// when it is woken there, and the copy moves on.
constexpr int copy_nice = 5, hurrying_nice = 19;

constexpr milliseconds crowd_look_every{2};
constexpr std::chrono::microseconds short_wait{500};

const fs::path own_threads = "/proc/self/task";

bool set_policy(pid_t thread, int policy) {
  const sched_param parameters{};
  return ::sched_setscheduler(thread, policy, &parameters) == 0;
}

// Leaving SCHED_IDLE takes a right that entering it doesn't: tried in a thread that ends with it.
bool may_leave_idle_policy() {
  bool outcome = false;
  std::thread([&outcome] {
    ::setpriority(PRIO_PROCESS, 0, copy_nice);
    outcome = set_policy(0, SCHED_IDLE) && set_policy(0, SCHED_OTHER);
  }).join();
  return outcome;
}

std::optional<run_time> run_time_of(const fs::path& thread) {
  std::int64_t on_cpu = 0;
  std::int64_t waited = 0;
  std::ifstream file(thread / "schedstat");
  if (!(file >> on_cpu >> waited)) return std::nullopt;
  return run_time{std::chrono::nanoseconds(on_cpu), std::chrono::nanoseconds(waited)};
}

std::optional<run_time> own_run_time() {
  return run_time_of(own_threads / std::to_string(::gettid()));
}

// The calling thread and its workers, which begin and end as they are needed.
std::map<pid_t, run_time> run_times() {
  std::map<pid_t, run_time> found;
  const std::string own = std::to_string(::gettid());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(own_threads, ignored)) {
    const std::string number = entry.path().filename();
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    if (number != own && name != "iou-wrk-" + own) continue;
    pid_t thread = 0;
    std::from_chars(number.data(), number.data() + number.size(), thread);
    if (const auto had = run_time_of(entry.path())) found[thread] = *had;
  }
  return found;
}

}  // namespace

bool should_give_way(bool now, const run_time& own, const run_time& workers,
                     std::chrono::nanoseconds elapsed) noexcept {
  const auto wanted = [elapsed](const run_time& had) { return std::min(had.on_cpu + had.waited, elapsed); };
  const auto hardly_needs_one = [&](const run_time& had) { return wanted(had) * 8 < elapsed; };
  const auto starves = [&](const run_time& had) { return !hardly_needs_one(had) && had.on_cpu * 16 < wanted(had); };
  if (now) return !starves(own) && !starves(workers);
  const run_time all{own.on_cpu + workers.on_cpu, own.waited + workers.waited};
  return !hardly_needs_one(all) && all.on_cpu * 4 > wanted(all) * 3;
}

copy_priority::copy_priority() : may_change_(may_leave_idle_policy() && own_run_time()) {
  ::setpriority(PRIO_PROCESS, 0, copy_nice);  // guests and the fault thread come first
  seen_ = run_times();
  if (may_change_) give_way(true);
}

void copy_priority::reconsider(clock::time_point now) {
  if (!may_change_ || now < last_look_ + look_every) return;
  auto all = run_times();
  run_time own, workers;
  for (const auto& [thread, total] : all) {
    run_time& had = thread == ::gettid() ? own : workers;
    had.on_cpu += total.on_cpu - seen_[thread].on_cpu;
    had.waited += total.waited - seen_[thread].waited;
  }
  seen_ = std::move(all);
  const auto elapsed = now - std::exchange(last_look_, now);
  give_way(should_give_way(gives_way_, own, workers, elapsed));
}

void copy_priority::hurry(bool wanted) {
  hurries_ = wanted;
  apply_to_own();
  if (!wanted) return;
  crowd_look_ = clock::now();
  had_at_crowd_look_ = own_run_time().value_or(run_time{});
}

bool copy_priority::is_crowded(clock::time_point now) {
  if (!hurries_ || now < crowd_look_ + crowd_look_every) return false;
  crowd_look_ = now;
  const auto total = own_run_time();
  if (!total) return false;
  const run_time before = std::exchange(had_at_crowd_look_, *total);
  const auto waited = total->waited - before.waited, ran = total->on_cpu - before.on_cpu;
  return waited > short_wait && waited * 4 > waited + ran;
}

// Workers that begin later have the policy and nice value of the thread that needs them, until it looks again.
void copy_priority::give_way(bool wanted) {
  gives_way_ = wanted;
  for (const auto& [thread, total] : seen_) {
    if (thread == ::gettid()) continue;
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(thread), copy_nice);  // one that began while it hurried has its value
    set_policy(thread, wanted ? SCHED_IDLE : SCHED_OTHER);
  }
  apply_to_own();
}

void copy_priority::apply_to_own() const {
  ::setpriority(PRIO_PROCESS, 0, hurries_ && gives_way_ ? hurrying_nice : copy_nice);
  set_policy(0, hurries_ ? SCHED_BATCH : gives_way_ ? SCHED_IDLE : SCHED_OTHER);
}

}  // namespace coppice
