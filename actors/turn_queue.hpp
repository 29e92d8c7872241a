// Whose turn it is: a mutex in the form of a queue, for actors.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

namespace coppice {

// Grants one holder at a time, in the order of asking. Owned by one actor; not thread-safe.
class turn_queue {
 public:
  // Calls `granted` when it is the turn of `who`: at once if nobody holds it (or `who` does).
  void ask(std::uint64_t who, std::function<void()> granted);
  // `who` neither holds nor waits any more; the next one is granted. Idempotent.
  void give_back(std::uint64_t who);
  std::optional<std::uint64_t> holder() const noexcept { return holder_; }

 private:
  struct waiter {
    std::uint64_t who;
    std::function<void()> granted;
  };
  std::optional<std::uint64_t> holder_;
  std::deque<waiter> waiting_;
};

}  // namespace coppice
