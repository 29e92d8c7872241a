#include "bench/busy_machine.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace coppice::bench {
namespace {

using steady = std::chrono::steady_clock;

constexpr auto burst = std::chrono::milliseconds(800);  // less than the kernel grants real time in a second
constexpr auto rest = std::chrono::milliseconds(200);
constexpr auto window = std::chrono::milliseconds(100);
constexpr int bursts = 5;

void spin_on(unsigned cpu, steady::time_point begin, std::vector<double>& longest) {
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(cpu, &only);
  ::pthread_setaffinity_np(::pthread_self(), sizeof only, &only);
  sched_param priority{};
  priority.sched_priority = 1;
  ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &priority);
  auto before = steady::now();
  for (;;) {
    const auto now = steady::now();
    const auto at = static_cast<std::size_t>(std::max(steady::duration::zero(), before - begin) / window);
    if (at >= longest.size()) return;
    longest[at] = std::max(longest[at], std::chrono::duration<double, std::micro>(now - before).count());
    before = now;
  }
}

}  // namespace

std::vector<double> busy_gaps_us() {
  const unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
  std::vector<double> all;
  for (int i = 0; i < bursts; ++i) {
    const auto begin = steady::now();
    std::vector<std::vector<double>> longest(cpus, std::vector<double>(burst / window));
    std::vector<std::thread> threads;
    for (unsigned cpu = 0; cpu < cpus; ++cpu) threads.emplace_back(spin_on, cpu, begin, std::ref(longest[cpu]));
    for (auto& thread : threads) thread.join();
    for (std::size_t at = 0; at < longest.front().size(); ++at) {
      double worst = 0;
      for (const auto& of_cpu : longest) worst = std::max(worst, of_cpu[at]);
      all.push_back(worst);
    }
    std::this_thread::sleep_for(rest);
  }
  return all;
}

}  // namespace coppice::bench
