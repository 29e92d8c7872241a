// What a copy has done: how many pages need no more work, and how they came to that.
#pragma once

#include "copy_engine/epoch.hpp"

namespace coppice {

// Each page is counted once. Copy thread only.
class copy_tally {
 public:
  // Tells it to the epoch's `settled_pages`, too.
  explicit copy_tally(memory_epoch& epoch) : epoch_(epoch) {}

  void count_zero_page() noexcept { count(summary_.zero_pages, 1); }
  void count_hole(std::size_t pages) noexcept { count(summary_.hole_pages, pages); }
  void count_bulk(std::size_t pages) noexcept { count(summary_.bulk_pages, pages); }
  void count_captured_page() noexcept { count(summary_.captured_pages, 1); }

  std::size_t settled_pages() const noexcept { return settled_; }
  bool is_complete() const noexcept { return settled_ == epoch_.states.size(); }
  const copy_summary& summary() const noexcept { return summary_; }  // only the page counts

 private:
  void count(std::uint64_t& kind, std::size_t pages) noexcept {
    kind += pages;
    settled_ += pages;
    epoch_.settled_pages.store(settled_, std::memory_order_relaxed);
  }

  memory_epoch& epoch_;
  copy_summary summary_;
  std::size_t settled_ = 0;
};

}  // namespace coppice
