// The inbox of a thread that sleeps on file descriptors: the fault thread, the copy thread and the event loop have one
// each. Work that may block goes to a worker_pool instead. Why there are these two:
// docs/decisions/actors-and-threads.md
//
// No lock: none of these threads is to wait for one that a thread of the least priority holds (SCHED_IDLE: it may not
// run again for long). For the same reason each post wakes the thread by itself: one that found the queue not empty,
// and relied on the wake-up of the post before, would wait for the thread that is about to make it.
#pragma once

#include <sys/eventfd.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/intrusive_stack.hpp"

namespace coppice {

// post() and wake() on any thread, the rest on the owning thread. What is left at the end is dropped.
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
  // From the owning thread, which looks (empty()) before it sleeps.
  void post_to_self(task work) { tasks_.push(new posted{nullptr, std::move(work)}); }

  void wake() const noexcept {
    // Fails only when the counter is full, and then the thread is woken anyway.
    [[maybe_unused]] const auto ignored = ::eventfd_write(eventfd_.get(), 1);
  }

  int fd() const noexcept { return eventfd_.get(); }  // readable once woken
  bool empty() const noexcept { return tasks_.empty(); }

  void clear_wakeups() const noexcept {
    eventfd_t count = 0;
    [[maybe_unused]] const auto ignored = ::eventfd_read(eventfd_.get(), &count);
  }

  // Runs what was posted up to now; what one thread posted, in its order. False if that was nothing.
  bool run_posted() {
    posted* last = tasks_.take_all();
    if (last == nullptr) return false;
    std::vector<std::unique_ptr<posted>> ready;
    for (; last != nullptr; last = last->next) ready.emplace_back(last);
    for (; !ready.empty(); ready.pop_back()) ready.back()->work();  // and releases what it holds before the next one
    return true;
  }
  // And what that posts.
  void run_all() {
    while (run_posted()) {
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
