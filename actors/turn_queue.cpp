#include "actors/turn_queue.hpp"

#include <algorithm>
#include <utility>

namespace coppice {

void turn_queue::ask(std::uint64_t who, std::function<void()> granted) {
  if (!holder_ || *holder_ == who) {
    holder_ = who;
    granted();
    return;
  }
  waiting_.push_back({who, std::move(granted)});
}

void turn_queue::give_back(std::uint64_t who) {
  std::erase_if(waiting_, [who](const waiter& entry) { return entry.who == who; });
  if (holder_ != who) return;
  holder_.reset();
  if (waiting_.empty()) return;
  auto next = std::move(waiting_.front());
  waiting_.pop_front();
  holder_ = next.who;
  next.granted();
}

}  // namespace coppice
