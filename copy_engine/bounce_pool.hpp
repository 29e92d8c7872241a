// The bounded memory that holds captured pages until they are written.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/units.hpp"
#include "copy_engine/intrusive_stack.hpp"

namespace coppice {

// One captured page: its content, and which page it is. Owned by the pool; passed from fault thread to copy thread.
struct bounce_buffer {
  bounce_buffer* next = nullptr;
  std::size_t page = 0;
  std::byte* data = nullptr;  // page_size bytes, page-aligned

  std::span<const std::byte> bytes() const noexcept { return {data, page_size}; }
};

// acquire(), available() and trim() on the fault thread only; release() on any.
class bounce_pool {
 public:
  static result<bounce_pool> create(std::uint64_t bytes) {
    auto memory = mapping::anonymous(bytes / page_size * page_size);
    if (!memory) return std::move(memory).error();
    return bounce_pool(std::move(*memory));
  }

  bounce_pool(bounce_pool&& other) noexcept
      : memory_(std::move(other.memory_)),
        buffers_(std::move(other.buffers_)),
        free_(other.free_),
        free_count_(other.free_count_) {}

  // How many acquire() can hand out now, counting what was released so far.
  std::size_t available() noexcept {
    for (bounce_buffer* buffer = released_.take_all(); buffer != nullptr;) {
      bounce_buffer* const next = buffer->next;
      buffer->next = free_;
      free_ = buffer;
      ++free_count_;
      buffer = next;
    }
    return free_count_;
  }

  // REQUIRES: available() > 0
  bounce_buffer* acquire() noexcept {
    bounce_buffer* const buffer = free_;
    free_ = buffer->next;
    --free_count_;
    used_.fetch_add(1, std::memory_order_relaxed);
    return buffer;
  }

  void release(bounce_buffer* buffer) noexcept {
    used_.fetch_sub(1, std::memory_order_relaxed);
    released_.push(buffer);
  }

  std::uint64_t used_bytes() const noexcept { return used_.load(std::memory_order_relaxed) * page_size; }

  // Gives the memory back to the system if nothing is in use.
  void trim() noexcept {
    if (available() == buffers_.size()) ::madvise(memory_.data(), memory_.size(), MADV_DONTNEED);
  }

 private:
  explicit bounce_pool(mapping memory) : memory_(std::move(memory)), buffers_(memory_.size() / page_size) {
    for (std::size_t i = buffers_.size(); i-- > 0;) {
      buffers_[i].data = memory_.data() + i * page_size;
      buffers_[i].next = free_;
      free_ = &buffers_[i];
    }
    free_count_ = buffers_.size();
  }

  mapping memory_;
  std::vector<bounce_buffer> buffers_;
  bounce_buffer* free_ = nullptr;
  std::size_t free_count_ = 0;
  intrusive_stack<bounce_buffer> released_;
  std::atomic<std::uint64_t> used_{0};
};

}  // namespace coppice
