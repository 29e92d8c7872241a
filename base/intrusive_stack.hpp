// A lock-free stack that many threads push to and one thread empties. Taking all at once leaves no ABA problem.
// Sequentially consistent: "push, then look whether the taker sleeps" and "say that I sleep, then take" never miss each
// other.
#pragma once

#include <atomic>

namespace coppice {

// T has a member `T* next`. Does not own its elements.
template <class T>
class intrusive_stack {
 public:
  // True if the stack was empty before: the taker may have to be woken.
  bool push(T* element) noexcept {
    T* head = head_.load(std::memory_order_relaxed);
    do {
      element->next = head;
    } while (!head_.compare_exchange_weak(head, element));
    return head == nullptr;
  }

  // The elements, last pushed first, linked by `next`; nullptr if there are none.
  T* take_all() noexcept { return head_.exchange(nullptr); }

  bool empty() const noexcept { return head_.load(std::memory_order_acquire) == nullptr; }

 private:
  std::atomic<T*> head_{nullptr};
};

}  // namespace coppice
