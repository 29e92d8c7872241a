// The engine's counters.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "copy_engine/copy_engine.hpp"

namespace coppice {

// Each counter is written by the engine's threads and read by any: relaxed atomics, no order between them.
struct engine_counters {
  static constexpr std::array<double, 12> fault_bounds{10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6,
                                                       1e-3,  2e-3,  5e-3,  10e-3,  50e-3,  250e-3};

  std::atomic<std::uint64_t> faults{0};
  std::atomic<std::uint64_t> captured_pages{0};
  std::atomic<std::uint64_t> bulk_pages{0};
  std::atomic<std::uint64_t> written_bytes{0};
  std::atomic<std::uint64_t> deferred_faults{0};
  std::atomic<std::uint64_t> saved_ahead_pages{0};
  std::array<std::atomic<std::uint64_t>, fault_bounds.size() + 1> fault_counts{};
  std::atomic<std::uint64_t> fault_nanoseconds{0};

  void fault_served(std::chrono::nanoseconds service) noexcept {
    const double seconds = std::chrono::duration<double>(service).count();
    const auto bucket = std::lower_bound(fault_bounds.begin(), fault_bounds.end(), seconds) - fault_bounds.begin();
    fault_counts[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
    fault_nanoseconds.fetch_add(static_cast<std::uint64_t>(service.count()), std::memory_order_relaxed);
    faults.fetch_add(1, std::memory_order_relaxed);
  }
};

}  // namespace coppice
