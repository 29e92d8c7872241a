// One thread that waits for many file descriptors and timers: the API connections, pidfds and listeners of all VMs.
// Whoever runs callbacks holds the loop's turn: mostly that thread, now and then one that had something to do at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.hpp"

namespace coppice {

// Callbacks and tasks run one at a time, and must not block or throw. They may add and remove watches and timers, their
// own included, and may drop the last reference to the loop.
class event_loop {
 public:
  using clock = std::chrono::steady_clock;
  using task = std::function<void()>;
  using fd_callback = std::function<void(std::uint32_t events)>;  // EPOLLIN, EPOLLOUT, EPOLLHUP, ...
  using timer_id = std::uint64_t;                                 // never 0

  // Starts the thread. Errors: io.
  static result<std::shared_ptr<event_loop>> create();
  // Runs what was posted, drops watches and timers, and joins the thread (unless a callback or task does this).
  ~event_loop();
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;

  // Thread-safe: runs `work` on the loop's thread, in order of posting.
  void post(task work);
  // Thread-safe: like post(), but runs `work` before it returns if nothing else runs or waits. That saves the wake-up
  // of the loop's thread (30 to 50 us on a busy machine). So don't hold a lock that `work` takes.
  void dispatch(task work);
  // Thread-safe: runs `work` on the loop's thread and returns when it has run; at once in a callback or task.
  void run_sync(const task& work);
  // Whether this is called in a callback or a task.
  bool running_in_this_thread() const noexcept;

  // REQUIRES for all below: running_in_this_thread().
  // Calls `callback` while `fd` has one of `events` (level-triggered); replaces what was watched on that fd. Errors:
  // io.
  result<void> watch(int fd, std::uint32_t events, fd_callback callback);
  // Must be called before the fd is closed. Nothing happens if it is not watched.
  void unwatch(int fd) noexcept;
  // Runs `work` once, at `when` or soon after.
  timer_id add_timer(clock::time_point when, task work);
  void cancel_timer(timer_id timer) noexcept;

 private:
  class state;
  explicit event_loop(std::shared_ptr<state> shared) : state_(std::move(shared)) {}

  std::shared_ptr<state> state_;  // shared with the thread
};

}  // namespace coppice
