// How many pages beyond the faulting one are served with it: a guest that writes sequentially shall not fault on every
// page.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

namespace coppice {

// Recognises the sequential writers of one VM (several at once: a guest has several vCPUs). A fault right behind the
// last window of a writer doubles its window; a fault anywhere else starts with one page, so random writes cost nothing
// extra. Not thread-safe.
class fault_around {
 public:
  static constexpr std::size_t max_window_pages = 16;  // 64 KiB

  // The window for a fault on `page`: that page and the ones after it.
  std::size_t window_for(std::size_t page) noexcept {
    const auto known =
        std::find_if(writers_.begin(), writers_.end(), [&](const writer& each) { return each.next_page == page; });
    writer& found = known != writers_.end() ? *known : writers_[next_victim_++ % writers_.size()];
    found.window = known != writers_.end() ? std::min(found.window * 2, max_window_pages) : 1;
    found.next_page = page + found.window;
    return found.window;
  }

 private:
  struct writer {
    std::size_t next_page = static_cast<std::size_t>(-1);
    std::size_t window = 1;
  };

  std::array<writer, 8> writers_;
  std::size_t next_victim_ = 0;
};

}  // namespace coppice
