// The page states of one branch: the protocol between the fault thread and the copy thread. No locks.
//
//   armed ──claim──▶ in_flight ──settle──▶ done            (copy thread)
//   armed ──capture──▶ captured                            (fault thread, after it saved the page)
//   in_flight ──capture──▶ captured_in_flight              (fault thread, after it saved the page)
//   armed ──skip──▶ done                                   (copy thread: holes)
//
// Whoever lifts a page's protection has called capture() before, or seen that needs_capture() is false, which is final:
// a page in `armed` or `in_flight` is protected.
// So if settle() succeeds, the page was protected from claim() on, and what was read in between is the epoch's content.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace coppice {

enum class page_state : std::uint8_t { armed, in_flight, captured, captured_in_flight, done };

// One state a page. Thread-safe.
class page_states {
 public:
  explicit page_states(std::size_t pages) : states_(new std::atomic<page_state>[pages]()), size_(pages) {}

  std::size_t size() const noexcept { return size_; }
  page_state at(std::size_t page) const noexcept { return states_[page].load(std::memory_order_acquire); }

  bool claim(std::size_t page) noexcept { return change(page, page_state::armed, page_state::in_flight); }
  // False: a fault captured the page meanwhile; what was read is void.
  bool settle(std::size_t page) noexcept { return change(page, page_state::in_flight, page_state::done); }
  bool skip(std::size_t page) noexcept { return change(page, page_state::armed, page_state::done); }

  // Whether a write to the page must be preceded by a capture.
  bool needs_capture(std::size_t page) const noexcept {
    const page_state state = at(page);
    return state == page_state::armed || state == page_state::in_flight;
  }
  // REQUIRES: the page's content has been saved. False: it was settled in the meantime, the saved copy is not needed.
  bool capture(std::size_t page) noexcept {
    return change(page, page_state::armed, page_state::captured) ||
           change(page, page_state::in_flight, page_state::captured_in_flight);
  }

 private:
  bool change(std::size_t page, page_state from, page_state to) noexcept {
    return states_[page].compare_exchange_strong(from, to, std::memory_order_acq_rel, std::memory_order_acquire);
  }

  std::unique_ptr<std::atomic<page_state>[]> states_;
  std::size_t size_;
};

static_assert(static_cast<int>(page_state::armed) == 0, "value-initialised states are armed");

}  // namespace coppice
