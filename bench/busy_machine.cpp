#include "bench/busy_machine.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <thread>
#include <vector>

#include "base/file.hpp"

namespace coppice::bench {
namespace {

using steady = std::chrono::steady_clock;

// Until Linux 6.12 a CPU's real-time threads were stopped when they had run for sched_rt_runtime_us of a second. Since
// then only others that wait get that rest of it.
constexpr int first_without_throttle_major = 6, first_without_throttle_minor = 12;
constexpr int highest_nice = -20;

bool may_be_throttled(std::chrono::nanoseconds length) {
  const auto text = read_text_file("/proc/sys/kernel/sched_rt_runtime_us");
  const long granted_us = text ? std::strtol(text->c_str(), nullptr, 10) : -1;
  if (granted_us < 0 || length < std::chrono::microseconds(granted_us)) return false;
  utsname kernel{};
  int major = 0, minor = 0;
  if (::uname(&kernel) != 0 || std::sscanf(kernel.release, "%d.%d", &major, &minor) != 2) return true;
  return std::pair(major, minor) < std::pair(first_without_throttle_major, first_without_throttle_minor);
}

// Whether in real time.
bool raise_priority(bool real_time) {
  sched_param priority{};
  priority.sched_priority = 1;
  if (real_time && ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &priority) == 0) return true;
  ::setpriority(PRIO_PROCESS, 0, highest_nice);  // of this thread (setpriority(2), C library/kernel differences)
  return false;
}

// Begins when all have come, so that each finds all CPUs busy from its first moment on.
void spin_on(unsigned cpu, bool real_time, std::chrono::nanoseconds length, std::latch& ready, busy_gap& seen) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(cpu, &only);
  ::pthread_setaffinity_np(::pthread_self(), sizeof only, &only);
  seen.in_real_time = raise_priority(real_time);
  ready.arrive_and_wait();
  steady::duration longest{};
  auto before = steady::now();
  for (const auto end = before + length; before < end;) {
    const auto now = steady::now();
    longest = std::max(longest, now - before);
    before = now;
  }
  seen.longest_us = std::chrono::duration<double, std::micro>(longest).count();
}

}  // namespace

busy_gap measure_busy_gap(std::chrono::nanoseconds length) {
  const unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
  const bool real_time = !may_be_throttled(length);
  std::vector<busy_gap> of_cpus(cpus);
  std::vector<std::thread> threads;
  std::latch ready(cpus);
  for (unsigned cpu = 0; cpu < cpus; ++cpu)
    threads.emplace_back(spin_on, cpu, real_time, length, std::ref(ready), std::ref(of_cpus[cpu]));
  for (auto& thread : threads) thread.join();
  return *std::ranges::max_element(of_cpus, {}, &busy_gap::longest_us);
}

}  // namespace coppice::bench
