// Where everything that blocks is done: who must not wait posts, and hears of the end by a message.
#pragma once

#include <sched.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace coppice {

// Runs tasks at some time, on some thread. Thread-safe. The seam that lets tests run tasks when they want.
class executor {
 public:
  virtual ~executor() = default;
  virtual void post(std::function<void()> task) = 0;
  virtual std::size_t queued() const = 0;  // tasks that no thread has begun
};

// A few threads that share one queue. In SCHED_BATCH (sched(7)): one that is woken doesn't take the CPU of a guest.
class worker_pool final : public executor {
 public:
  // `name`: the threads', up to 15 characters. `policy`: of sched(7), one without parameters.
  explicit worker_pool(unsigned threads, std::string name = "worker", int policy = SCHED_BATCH);
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;
  // Runs what is queued, then ends the threads.
  ~worker_pool() override;

  // After stop(), runs the task at once on the caller's thread.
  void post(std::function<void()> task) override;
  std::size_t queued() const override;
  // Finishes the queue and joins. Idempotent. REQUIRES: not called from a task.
  void stop();

 private:
  void run();

  const std::string name_;
  const int policy_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Shares `object`; the last owner's thread does not destroy it, `pool` does. For objects whose destructor may block.
template <class T>
std::shared_ptr<T> share_offloaded(std::shared_ptr<executor> pool, std::unique_ptr<T> object) {
  return std::shared_ptr<T>(object.release(), [pool = std::move(pool)](T* doomed) {
    pool->post([owned = std::shared_ptr<T>(doomed)]() mutable { owned.reset(); });
  });
}

}  // namespace coppice
