// A host whose CPUs are all busy.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace coppice {

// Threads that compute, two a CPU, until this goes.
class busy_cpus {
 public:
  busy_cpus() {
    for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i)
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
  }
  ~busy_cpus() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace coppice
