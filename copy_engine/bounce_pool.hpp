// The bounded memory that holds captured pages until they are written. All VMs share it, by dynamic thresholds
// (Choudhury and Hahne 1998, for the buffers of network switches): a VM may hold up to four times what is free. So one
// whose disk is stuck takes four fifths of the pool at most, two of them four ninths each, and some is always left for
// the others. Pages that are saved ahead count, too, and only as long as the VM holds no more than what is free: one VM
// takes half of the pool for them at most, and the rest is there for its captures.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/intrusive_stack.hpp"
#include "base/units.hpp"

namespace coppice {

// How many pages a VM holds.
class bounce_share {
 public:
  std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }

 private:
  friend class bounce_pool;
  std::atomic<std::size_t> held_{0};
};

// One captured page: its content, and which page it is. Owned by the pool; passed from fault thread to copy thread.
struct bounce_buffer {
  bounce_buffer* next = nullptr;
  std::size_t page = 0;
  std::byte* data = nullptr;  // page_size bytes, page-aligned
  bounce_share* holder = nullptr;

  std::span<const std::byte> bytes() const noexcept { return {data, page_size}; }
};

// release(), reserve(), unreserve(), free_pages() and used_bytes() on any thread, all others on the fault thread only.
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
    const std::size_t reserved = reserved_.load(std::memory_order_relaxed);
    return free_count_ > reserved ? free_count_ - reserved : 0;
  }

  // How many of them `vm` may have: as many as if it took one after the other, each of which leaves fewer free.
  std::size_t available_to(const bounce_share& vm) noexcept {
    const std::size_t free = available(), most = most_of_free * free, held = vm.held();
    return held < most ? (most - held + most_of_free) / (most_of_free + 1) : 0;
  }

  // `vm` outlives the buffer's use. REQUIRES: available() > 0
  bounce_buffer* acquire(bounce_share& vm) noexcept {
    bounce_buffer* const buffer = free_;
    free_ = buffer->next;
    --free_count_;
    used_.fetch_add(1, std::memory_order_relaxed);
    vm.held_.fetch_add(1, std::memory_order_relaxed);
    buffer->holder = &vm;
    return buffer;
  }

  void release(bounce_buffer* buffer) noexcept {
    used_.fetch_sub(1, std::memory_order_relaxed);
    buffer->holder->held_.fetch_sub(1, std::memory_order_relaxed);
    released_.push(buffer);
  }

  // Counts `pages` of the caller's own memory as the pool's. False: there would not be as much free then as `vm` holds,
  // and `to_spare` pages beside.
  bool reserve(bounce_share& vm, std::size_t pages, std::size_t to_spare) noexcept {
    std::size_t used = used_.load(std::memory_order_relaxed);
    do {
      if (used + pages + (vm.held() + pages) + to_spare > buffers_.size()) return false;
    } while (!used_.compare_exchange_weak(used, used + pages, std::memory_order_relaxed));
    reserved_.fetch_add(pages, std::memory_order_relaxed);
    vm.held_.fetch_add(pages, std::memory_order_relaxed);
    return true;
  }
  void unreserve(bounce_share& vm, std::size_t pages) noexcept {
    vm.held_.fetch_sub(pages, std::memory_order_relaxed);
    reserved_.fetch_sub(pages, std::memory_order_relaxed);
    used_.fetch_sub(pages, std::memory_order_relaxed);
  }

  std::size_t free_pages() const noexcept { return buffers_.size() - used_.load(std::memory_order_relaxed); }
  std::uint64_t used_bytes() const noexcept { return used_.load(std::memory_order_relaxed) * page_size; }

  bool is_unused() noexcept {
    available();
    return free_count_ == buffers_.size();
  }
  std::uint64_t size() const noexcept { return memory_.size(); }  // bytes
  // Gives [offset, offset + size) back to the system. Any thread. REQUIRES: nothing in it is in use.
  void trim(std::uint64_t offset, std::uint64_t size) const noexcept {
    ::madvise(memory_.data() + offset, std::min(size, memory_.size() - offset), MADV_DONTNEED);
  }

 private:
  static constexpr std::size_t most_of_free = 4;

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
  std::atomic<std::size_t> used_{0};      // pages: buffers in use, and what is reserved
  std::atomic<std::size_t> reserved_{0};  // pages
};

}  // namespace coppice
