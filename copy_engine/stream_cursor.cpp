#include "copy_engine/stream_cursor.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace coppice {

stream_cursor::stream_cursor(const memory_epoch& epoch) : memory_(*epoch.memory), pages_(epoch.states.size()) {
  const auto& touches = epoch.touches_of_block;
  for (std::size_t block = 0; block < touches.size(); ++block) {
    if (touches[block] > 0) hot_blocks_.push_back(block);
  }
  std::sort(hot_blocks_.begin(), hot_blocks_.end(),
            [&](std::size_t left, std::size_t right) { return touches[left] < touches[right]; });
}

stream_cursor::page_range stream_cursor::next_block() {
  page_range next{next_page_, 0, false};
  if (!hot_blocks_.empty()) {
    next = {hot_blocks_.back() * block_pages, 0, true};
    hot_blocks_.pop_back();
  }
  next.end = std::min(pages_, next.first + block_pages);
  return next;
}

result<void> stream_cursor::look_for_holes() {
  struct stat of {};
  if (::fstat(memory_.fd(), &of) != 0) return errno_error("read the size of guest RAM");
  has_holes_ = static_cast<std::uint64_t>(of.st_blocks) * 512 < memory_.size();
  return {};
}

bool stream_cursor::is_in_memory(std::size_t page) noexcept {
  const std::size_t block = page / block_pages;
  if (block != known_block_) {
    const std::size_t pages = std::min(block_pages, pages_ - block * block_pages);
    std::byte* const first = memory_.data() + block * block_pages * page_size;
    if (::mincore(first, pages * page_size, in_memory_of_block_.data()) != 0) in_memory_of_block_.fill(0);
    known_block_ = block;
  }
  return (in_memory_of_block_[page % block_pages] & 1) != 0;
}

result<std::size_t> stream_cursor::next_data(std::size_t page) {
  if (!has_holes_ || page >= pages_ || is_in_memory(page)) return page;
  const off_t data = ::lseek(memory_.fd(), static_cast<off_t>(page * page_size), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return pages_;  // nothing but a hole up to the end
  if (data < 0) return errno_error("seek data of guest RAM");
  return static_cast<std::size_t>(data) / page_size;
}

}  // namespace coppice
