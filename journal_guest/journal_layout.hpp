// Where the journal guest keeps its journal, and which page each step writes. Shared by the guest itself (freestanding:
// nothing here needs a library), its thread version in coppice-vmm, and the oracle.
//
// Step n (n = 1, 2, ...) of a lane writes n to the first and to the last word of page page_of_step(n), then n to the
// lane's `step` word, in that order. The guest keeps n in a register. So an image of `step` = s holds in every page the
// number of the last step up to s that wrote it; only the page of step s + 1 may be newer already (its first word, or
// both).
#pragma once

#include <cstddef>
#include <cstdint>

namespace coppice::journal {

inline constexpr std::uint64_t magic = 0x4c414e52554f4a43;  // "CJOURNAL"
inline constexpr std::uint64_t layout_version = 1;

// Guest-physical addresses; all below the MMIO gap, where they equal offsets in the memory file.
inline constexpr std::uint64_t page_bytes = 4096;
inline constexpr std::uint64_t headers_address = 0x200000;
inline constexpr std::uint64_t header_stride = 0x2000;
inline constexpr std::uint64_t lanes_address = 0x400000;
inline constexpr std::uint64_t lanes_end = 0xd0000000;  // Firecracker's MMIO gap begins here
inline constexpr std::uint64_t max_lanes = 4;
inline constexpr std::uint64_t stall_ring_size = 256;
inline constexpr std::uint64_t last_word = page_bytes / sizeof(std::uint64_t) - 1;

enum class pattern : std::uint64_t { random = 0, sequential = 1, zipf = 2 };

struct stall {
  std::uint64_t start_tsc;
  std::uint64_t cycles;
};

// One lane (vCPU). Written by the guest alone, but for reset_request. All zero until the guest has set it up; `magic`
// is written last.
struct lane_header {
  std::uint64_t magic;
  std::uint64_t version;
  std::uint64_t lane;
  std::uint64_t lanes;
  std::uint64_t pages;  // of this lane; every lane has as many
  std::uint64_t pattern;
  std::uint64_t seed;
  std::uint64_t base;  // address of the lane's first page
  std::uint64_t pace_cycles;
  std::uint64_t threshold_cycles;
  std::uint64_t tsc_khz;  // 0: the guest could not learn it
  std::uint64_t rest_us;  // idle time between two steps
  std::uint64_t reserved[4];

  std::uint64_t step;           // the last whole step
  std::uint64_t gaps;           // how often `step` was not what the register said
  std::uint64_t longest_stall;  // TSC cycles between two steps (beyond pace and rest), since the last reset
  std::uint64_t reset_request;  // the host adds 1 to have longest_stall forgotten ...
  std::uint64_t reset_done;     // ... and the guest answers here
  std::uint64_t filled;         // 1: the fill pass (steps 1 to pages) is over
  std::uint64_t stalls;         // stalls over threshold_cycles; the last stall_ring_size of them are in `ring`
  std::uint64_t reserved_hot[9];

  stall ring[stall_ring_size];
};
static_assert(offsetof(lane_header, step) == 128 && offsetof(lane_header, ring) == 256);
static_assert(sizeof(lane_header) <= header_stride);

constexpr std::uint64_t header_address(std::uint64_t lane) {
  return headers_address + lane * header_stride;
}
constexpr std::uint64_t lane_base(std::uint64_t lane, std::uint64_t pages) {
  return lanes_address + lane * pages * page_bytes;
}

// splitmix64's finalizer.
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// `hash`, scaled to [0, bound).
constexpr std::uint64_t scale(std::uint64_t hash, std::uint64_t bound) {
  __extension__ using wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<wide>(hash) * bound) >> 64);
}

// The page (0 to pages - 1) that step n >= 1 writes: first each page once, in order, then the pattern. `zipf` chooses a
// power of two evenly, then a page below it evenly: the chance of page k falls as 1/k. REQUIRES: pages > 0, n > 0.
constexpr std::uint64_t page_of_step(pattern kind, std::uint64_t seed, std::uint64_t lane, std::uint64_t pages,
                                     std::uint64_t n) {
  if (n <= pages) return n - 1;
  if (kind == pattern::sequential) return (n - 1) % pages;
  const std::uint64_t hash = mix(seed + (lane + 1) * 0xd1342543de82ef95 + n * 0x9e3779b97f4a7c15);
  if (kind == pattern::random) return scale(hash, pages);
  std::uint64_t levels = 1;
  while ((1ULL << (levels - 1)) < pages) ++levels;
  const std::uint64_t span = 1ULL << scale(hash, levels);
  return scale(mix(hash + 1), span < pages ? span : pages);
}

}  // namespace coppice::journal
