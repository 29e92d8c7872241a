// When a copy must hurry: while its guest stands still for it again and again.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "copy_engine/epoch.hpp"

namespace coppice {

// A guest that has more than one capturing fault a block (0.5 ms or so) raises it. Copy thread only.
class copy_pressure {
 public:
  // `hot_blocks`: what the guest wrote to during the pre-arm, which comes first. If these are a few, they are copied so
  // soon that little is won by hurrying: faults of the first `hot_set_time` from `begin` on don't count then. If they
  // are more, it writes everywhere: the first fault is enough.
  copy_pressure(std::size_t hot_blocks, engine_clock::time_point begin, std::chrono::milliseconds hot_set_time) {
    if (hot_blocks <= few_blocks) {
      faults_count_from_ = begin + hot_set_time;
    } else {
      pressure_ = high;
    }
  }

  // `faults`: the epoch's capturing ones up to now.
  void look_at_faults(std::uint64_t faults, engine_clock::time_point now) noexcept {
    if (now >= faults_count_from_) pressure_ = std::min(pressure_ + (faults - faults_seen_), highest);
    faults_seen_ = faults;
  }
  void block_streamed() noexcept { pressure_ -= std::min<std::uint64_t>(pressure_, 1); }
  bool is_high() const noexcept { return pressure_ > high; }

 private:
  static constexpr std::size_t few_blocks = 32;
  static constexpr std::uint64_t high = 64, highest = 128;

  engine_clock::time_point faults_count_from_;
  std::uint64_t faults_seen_ = 0;
  std::uint64_t pressure_ = 0;  // one more with each fault, one less with each block
};

}  // namespace coppice
