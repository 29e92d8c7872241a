// Work posted to an engine thread, with an eventfd that it sleeps on. No lock: the fault thread is not to wait for one
// that a thread of the least priority holds.
#pragma once

#include <sys/eventfd.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "copy_engine/intrusive_stack.hpp"

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

  ~task_queue() {
    for (posted* left = tasks_.take_all(); left != nullptr;) delete std::exchange(left, left->next);
  }

  void post(task work) {
    tasks_.push(new posted{nullptr, std::move(work)});
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

  // Runs what was posted, and what that posts; what one thread posts, in its order.
  void run_all() {
    while (posted* last = tasks_.take_all()) {
      std::vector<std::unique_ptr<posted>> ready;
      for (; last != nullptr; last = last->next) ready.emplace_back(last);
      for (auto next = ready.rbegin(); next != ready.rend(); ++next) (*next)->work();
    }
  }

 private:
  struct posted {
    posted* next;
    task work;
  };

  unique_fd eventfd_;
  intrusive_stack<posted> tasks_;
};

}  // namespace coppice
