// A limit on bytes per second.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>

namespace coppice {

// Spaces out what is spent. A limit of 0 is none. Thread-safe.
class rate_limit {
 public:
  using clock = std::chrono::steady_clock;

  explicit rate_limit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // How long to wait before anything more may be spent; zero: nothing to wait for.
  std::chrono::nanoseconds wait_at(clock::time_point now) {
    if (bytes_per_second_ == 0) return {};
    const std::lock_guard lock(mutex_);
    return std::max(std::chrono::nanoseconds(next_ - now), std::chrono::nanoseconds(0));
  }

  // May go beyond the limit: what follows waits the longer.
  void spend(std::uint64_t bytes, clock::time_point now) {
    if (bytes_per_second_ == 0) return;
    const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
    const std::lock_guard lock(mutex_);
    next_ = std::max(next_, now - credit) +
            std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds));
  }

 private:
  static constexpr std::chrono::milliseconds credit{
      5};  // unused time that may be caught up on: a late wake-up costs none

  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;
  clock::time_point next_;
};

}  // namespace coppice
