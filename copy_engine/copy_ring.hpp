// The copy thread's io_uring: writes in flight, and the one place where that thread waits.
#pragma once

#include <liburing.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.hpp"
#include "copy_engine/write_operation.hpp"

namespace coppice {

// Copy thread only, from the first wait on.
class copy_ring final : public write_queue {
 public:
  // Ends a wait when `wakeup` is readable, and calls `woken`, which makes it unreadable again. Errors: unsupported (no
  // io_uring).
  static result<std::unique_ptr<copy_ring>> create(int wakeup, std::function<void()> woken);
  ~copy_ring() override;  // REQUIRES: nothing is in flight
  copy_ring(const copy_ring&) = delete;
  copy_ring& operator=(const copy_ring&) = delete;

  void push(int image, write_operation& operation, bool by_worker) override;
  void submit() override;
  // Until a write is through, or somebody wakes the thread, or the time is up (nullopt: there is none; zero: no wait);
  // then tells the listeners of all that are through.
  void wait(std::optional<std::chrono::nanoseconds> at_most);

 private:
  copy_ring(int wakeup, std::function<void()> woken) : wakeup_(wakeup), woken_(std::move(woken)) {}

  io_uring_sqe* next_entry();
  void listen_for_wakeup();
  void handle(io_uring_cqe* completion);

  const int wakeup_;
  const std::function<void()> woken_;
  io_uring ring_{};
};

}  // namespace coppice
