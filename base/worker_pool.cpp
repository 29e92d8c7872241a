#include "base/worker_pool.hpp"

#include <pthread.h>

namespace coppice {

worker_pool::worker_pool(unsigned threads, std::string name, int policy) : name_(std::move(name)), policy_(policy) {
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

worker_pool::~worker_pool() {
  stop();
}

void worker_pool::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      queue_.push_back(std::move(task));
      wake_.notify_one();
      return;
    }
  }
  task();
}

std::size_t worker_pool::queued() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

void worker_pool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void worker_pool::run() {
  ::pthread_setname_np(::pthread_self(), name_.c_str());
  const sched_param parameters{};
  ::pthread_setschedparam(::pthread_self(), policy_, &parameters);
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    auto task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds may block when destroyed: not under the lock
    lock.lock();
  }
}

}  // namespace coppice
