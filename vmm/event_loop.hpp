// One thread that waits for many file descriptors and timers: the API connections, pidfds and listeners of all VMs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.hpp"

namespace coppice {

// Callbacks run on the loop's thread, one at a time, and must not block or throw. A callback may add and remove watches
// and timers, its own included, and may drop the last reference to the loop.
class event_loop {
 public:
  using clock = std::chrono::steady_clock;
  using task = std::function<void()>;
  using fd_callback = std::function<void(std::uint32_t events)>;  // EPOLLIN, EPOLLOUT, EPOLLHUP, ...
  using timer_id = std::uint64_t;                                 // never 0

  // Starts the thread. Errors: io.
  static result<std::shared_ptr<event_loop>> create();
  // Runs what was posted, drops watches and timers, and joins the thread (unless it runs on that thread).
  ~event_loop();
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;

  // Thread-safe: runs `work` on the loop's thread, in order of posting.
  void post(task work);
  // Thread-safe: runs `work` on the loop's thread and returns when it has run; at once if this is that thread.
  void run_sync(const task& work);
  bool on_loop_thread() const noexcept;

  // REQUIRES for all below: on_loop_thread().
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
