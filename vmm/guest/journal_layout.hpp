// The journal: what the guest writes, where, and in which order. Shared by the guest (freestanding), by coppice-vmm's
// thread version of it, and by the oracle. docs/journal-guest.md tells the story.
#pragma once

#include <cstdint>

namespace coppice::journal {

// Guest-physical addresses; all RAM below the gap, so also offsets in a memory image.
inline constexpr std::uint64_t header_address = 0x20'0000;  // lane i's header: one page, at header_address + i * 4096
inline constexpr std::uint64_t lanes_address = 0x40'0000;   // lane i's pages follow those of lane i - 1
inline constexpr std::uint64_t identity_mapped_bytes = 0x4000'0000;  // as far as a guest entered like Linux can reach

inline constexpr std::uint64_t magic = 0x4c4e'524a'5050'4f43;  // "COPPJRNL"
inline constexpr std::uint64_t version = 1;
inline constexpr std::uint64_t max_lanes = 4;
inline constexpr std::uint64_t ring_size = 192;
inline constexpr std::uint64_t words_per_page = 512;

enum class pattern : std::uint64_t { random = 0, sequential = 1, zipf = 2 };

// A time that passed between two steps.
struct stall {
  std::uint64_t at_step;
  std::uint64_t cycles;
};

// One lane: one vCPU's journal. The guest writes all of it; the configuration before `magic`, `magic` before the first
// step.
struct lane_header {
  std::uint64_t magic;
  std::uint64_t version;
  std::uint64_t lane;  // 0..lanes-1
  std::uint64_t lanes;
  std::uint64_t pages;             // of this lane
  std::uint64_t base_address;      // of this lane's first page
  std::uint64_t write_pattern;     // enum pattern
  std::uint64_t pace_cycles;       // between two steps; 0: full speed
  std::uint64_t threshold_cycles;  // stalls at least this long are recorded in the ring
  std::uint64_t step;              // steps done
  std::uint64_t gaps;              // times that the step in the register was not the one in memory
  std::uint64_t longest_cycles;    // longest time between two steps since the boot
  std::uint64_t stall_count;       // recorded ever: entry i is ring[i % ring_size]
  stall ring[ring_size];
};
static_assert(sizeof(lane_header) <= 4096);

constexpr std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// The page (0..pages-1) that step n (from 1) writes. First every page once, in order; then by the pattern.
constexpr std::uint64_t page_of_step(std::uint64_t n, std::uint64_t lane, std::uint64_t pages, pattern writes) {
  if (n <= pages) return n - 1;
  if (writes == pattern::sequential) return (n - 1) % pages;
  std::uint64_t fraction = mix(n + (lane << 56)) >> 32;  // uniform in [0, 2^32)
  if (writes == pattern::zipf) {
    // The fourth power of a uniform number: rank r is hit with a frequency like r^-0.75.
    fraction = (fraction * fraction) >> 32;
    fraction = (fraction * fraction) >> 32;
  }
  return (fraction * pages) >> 32;
}

}  // namespace coppice::journal
