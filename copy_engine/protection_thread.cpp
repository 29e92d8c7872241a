#include "copy_engine/protection_thread.hpp"

#include <pthread.h>

#include <utility>

namespace coppice {

protection_thread::protection_thread() : thread_([this] { loop(); }) {}

protection_thread::~protection_thread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void protection_thread::run(task work) {
  {
    const std::lock_guard lock(mutex_);
    next_ = std::move(work);
  }
  changed_.notify_one();
}

void protection_thread::loop() {
  ::pthread_setname_np(::pthread_self(), "coppice-protect");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return next_ || stopping_; });
    if (stopping_) return;
    task work = std::exchange(next_, nullptr);
    lock.unlock();
    work();
    work = nullptr;  // may close what the fault thread must not wait for
    lock.lock();
  }
}

}  // namespace coppice
