// When the copy thread runs: not while somebody else could, unless that leaves it too little.
//
// A guest that has waited for a fault is woken where it ran last, and that CPU may be the copy thread's by now. In
// SCHED_OTHER the guest then waits for a tick (4 ms at 250 Hz), whatever the nice values, though another CPU be idle; a
// thread in SCHED_IDLE gives its CPU up at once (sched(7); docs/decisions/cpu-priorities.md). On a host whose CPUs are
// all busy such a thread gets some 0.3 % of one, and its branches would not end.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>

namespace coppice {

// How long a thread has run, and has waited for a CPU while it could have run (/proc/PID/schedstat).
struct run_time {
  std::chrono::nanoseconds on_cpu{};
  std::chrono::nanoseconds waited{};
};

// Whether a thread and its workers, who now give way, or now don't, should do so from here on, having had this in the
// time `elapsed`. They give way until it or they get less than a sixteenth of what could have been used of one CPU,
// then compete until they get three quarters of one together. More than one CPU never counts: threads that have one
// between them wait for each other. A time in which they hardly needed one (less than an eighth of it) changes nothing.
bool should_give_way(bool now, const run_time& own, const run_time& workers, std::chrono::nanoseconds elapsed) noexcept;

// Of the calling thread and of io_uring's workers, which write for it. Not thread-safe: used by that thread only.
class copy_priority {
 public:
  using clock = std::chrono::steady_clock;

  // Begins with SCHED_IDLE where the thread may leave that again (RLIMIT_NICE of 15 or more, or CAP_SYS_NICE) and the
  // kernel tells run times, else with SCHED_OTHER for good; both at nice 5.
  copy_priority();

  static constexpr std::chrono::milliseconds look_every{100};

  // To be called at least that often while something is being written. Looks, no more often, at what the threads had
  // since it last did, and changes their policy if need be; of a thread in a hurry, its nice value.
  void reconsider(clock::time_point now);

  // From here on the calling thread is in SCHED_BATCH, at nice 19 as long as it gives way; with false as its workers.
  void hurry(bool wanted);

  // While it hurries: whether it has waited for a CPU for more than a quarter of the time in which it could have run
  // since this was last asked. No more often than every 2 ms, and of waits below half a millisecond: false.
  bool is_crowded(clock::time_point now);

  bool gives_way() const noexcept { return gives_way_; }
  bool hurries() const noexcept { return hurries_; }

 private:
  void give_way(bool wanted);
  void apply_to_own() const;

  bool may_change_ = false;
  bool gives_way_ = false;
  bool hurries_ = false;
  clock::time_point last_look_{};
  std::map<pid_t, run_time> seen_;
  clock::time_point crowd_look_{};
  run_time had_at_crowd_look_;
};

}  // namespace coppice
