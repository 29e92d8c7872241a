// The bare kernel round trip of a write fault: a thread that reads the fault and lifts the page's protection.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "base/fd.hpp"
#include "base/guest_memory.hpp"
#include "base/result.hpp"

namespace coppice::bench {

// Serves one region. Its thread runs at the priority that the engine's fault thread has.
class bare_handler {
 public:
  // REQUIRES: `handover` has one region. Errors: io.
  static result<std::unique_ptr<bare_handler>> start(uffd_handover handover);
  ~bare_handler();
  bare_handler(const bare_handler&) = delete;
  bare_handler& operator=(const bare_handler&) = delete;

  // Write-protects the whole region. Errors: io.
  result<void> protect();
  std::uint64_t faults() const noexcept { return faults_.load(std::memory_order_relaxed); }

 private:
  bare_handler(uffd_handover handover, unique_fd stop) : handover_(std::move(handover)), stop_(std::move(stop)) {}
  void run();

  uffd_handover handover_;
  unique_fd stop_;
  std::atomic<std::uint64_t> faults_{0};
  std::thread thread_;
};

}  // namespace coppice::bench
