// Where long protection changes are made, piece by piece.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace coppice {

// A thread of ordinary priority. The fault thread, which comes before all else, must not do this work: it would keep
// the CPU from a vCPU that happens to run there for as long as the whole change takes. One task at a time.
class protection_thread {
 public:
  using task = std::function<void()>;

  protection_thread();
  // Waits for the task that is being run.
  ~protection_thread();
  protection_thread(const protection_thread&) = delete;
  protection_thread& operator=(const protection_thread&) = delete;

  // REQUIRES: the task before has ended, or is about to. Any thread.
  void run(task work);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  task next_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace coppice
