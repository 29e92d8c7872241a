// Watches a running journal guest from outside, without a word to the daemon: what the guest did and felt, and when.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "journal_guest/journal_oracle.hpp"

namespace coppice::bench {

// The guest's RAM, mapped, with the journal's headers at its begin. Reading costs the guest nothing.
class journal_view {
 public:
  // The RAM of `sandbox` is a memfd of that name that process `owner` has open. Errors: unsupported (it has none), io.
  static result<journal_view> open(pid_t owner, const std::string& sandbox);
  result<journal_reading> read(const journal_reading& since = {}) const {
    return read_journal(ram().first(headers_end), since);
  }
  // Changes at any time.
  std::span<const std::byte> ram() const noexcept { return ram_.bytes(); }

 private:
  static constexpr std::uint64_t headers_end = journal::headers_address + journal::max_lanes * journal::header_stride;

  explicit journal_view(mapping ram) : ram_(std::move(ram)) {}
  mapping ram_;
};

// A thread that reads the journal every millisecond.
class journal_monitor {
 public:
  using clock = std::chrono::steady_clock;

  struct window {
    double steps = 0;
    double steps_per_s = 0;
    double longest_stall_us = 0;  // 0 if none was above the guest's threshold
    double unseen_stalls = 0;     // that the guest had overwritten before they were read: one of them may be longer
  };

  explicit journal_monitor(journal_view view);
  ~journal_monitor();
  journal_monitor(const journal_monitor&) = delete;
  journal_monitor& operator=(const journal_monitor&) = delete;

  // What happened from `begin` to `end`, both past and not before the last forget(). Waits until the guest has gone on
  // after `end`, so that a stall at the end counts with its whole length. Errors: deadline_exceeded (the guest does not
  // go on).
  result<window> between(clock::time_point begin, clock::time_point end) const;
  std::span<const std::byte> ram() const noexcept { return view_.ram(); }
  // Drops old samples.
  void forget();

 private:
  struct sample {
    clock::time_point at;
    std::uint64_t steps = 0;
    std::chrono::nanoseconds longest_stall{};  // of the stalls that ended since the sample before
    std::uint64_t unseen_stalls = 0;           // of the same
  };
  void run();
  std::vector<sample> samples() const;
  // Between the samples, evenly.
  static double steps_at(const std::vector<sample>& all, clock::time_point when);

  journal_view view_;
  mutable std::mutex mutex_;
  std::vector<sample> samples_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace coppice::bench
