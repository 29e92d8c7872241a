// Work posted to an engine thread, with an eventfd that it sleeps on.
#pragma once

#include <sys/eventfd.h>

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace coppice {

// post() and wake() on any thread, the rest on the owning thread.
class task_queue {
 public:
  using task = std::function<void()>;

  static result<unique_fd> make_eventfd() {
    unique_fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return errno_error("eventfd");
    return fd;
  }

  explicit task_queue(unique_fd eventfd) : eventfd_(std::move(eventfd)) {}

  void post(task work) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(work));
    }
    wake();
  }

  void wake() const noexcept {
    // Fails only when the counter is full, and then the thread is woken anyway.
    [[maybe_unused]] const auto ignored = ::eventfd_write(eventfd_.get(), 1);
  }

  int fd() const noexcept { return eventfd_.get(); }

  void clear_wakeups() const noexcept {
    eventfd_t count = 0;
    [[maybe_unused]] const auto ignored = ::eventfd_read(eventfd_.get(), &count);
  }

  // Runs what was posted, and what that posts, in order.
  void run_all() {
    for (;;) {
      std::vector<task> ready;
      {
        const std::lock_guard lock(mutex_);
        ready.swap(tasks_);
      }
      if (ready.empty()) return;
      for (task& work : ready) work();
    }
  }

 private:
  unique_fd eventfd_;
  std::mutex mutex_;
  std::vector<task> tasks_;
};

}  // namespace coppice
