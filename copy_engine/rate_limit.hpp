// A limit on bytes per second.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace coppice {

// Spaces out what is spent. A limit of 0 is none. Not thread-safe: the copy thread's, so that nobody waits for one that
// it has locked.
class rate_limit {
 public:
  using clock = std::chrono::steady_clock;

  explicit rate_limit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // From `now` on; what was spent before and is still to be waited for is waited for at the new speed.
  void set(std::uint64_t bytes_per_second, clock::time_point now) {
    if (next_ > now && bytes_per_second_ != 0 && bytes_per_second != 0) {
      const double scale = static_cast<double>(bytes_per_second_) / static_cast<double>(bytes_per_second);
      next_ = now + std::chrono::duration_cast<clock::duration>((next_ - now) * scale);
    } else {
      next_ = std::min(next_, now);
    }
    bytes_per_second_ = bytes_per_second;
  }

  // How long to wait before anything more may be spent; zero: nothing to wait for.
  std::chrono::nanoseconds wait_at(clock::time_point now) {
    if (bytes_per_second_ == 0) return {};
    return std::max(std::chrono::nanoseconds(next_ - now), std::chrono::nanoseconds(0));
  }

  // May go beyond the limit: what follows waits the longer.
  void spend(std::uint64_t bytes, clock::time_point now) {
    if (bytes_per_second_ == 0) return;
    const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_);
    next_ = std::max(next_, now - credit) +
            std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds));
  }

 private:
  static constexpr std::chrono::milliseconds credit{
      5};  // unused time that may be caught up on: a late wake-up costs none

  std::uint64_t bytes_per_second_;
  clock::time_point next_;
};

}  // namespace coppice
