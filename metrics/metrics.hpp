// The daemon's metrics. Callers name what happened; names, units, labels and buckets stand in catalog.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/branch_stats.hpp"

namespace coppice {

// One daemon's (or one test's) registry. Thread-safe; every call is a few hash look-ups, so not for use per page.
// Label values given as text must be few: states, step names, route patterns ("/v1/sandboxes/{id}"), never raw paths.
// A metric appears in text() once it has been reported.
class metrics {
 public:
  metrics();
  metrics(const metrics&) = delete;
  metrics& operator=(const metrics&) = delete;
  ~metrics();

  // Branches. Steps: reserve, prearm, pause, snapshot, rearm, resume, copy, publish.
  void branch_finished(branch_mode mode, std::string_view outcome);  // ready, failed or cancelled
  void branch_in_flight(int delta);                                  // +1 at the admission, -1 at the end
  void pause_seconds(branch_mode mode, double seconds);
  void step_seconds(std::string_view step, double seconds);
  void deadline_missed(std::string_view step);
  void step_failed(std::string_view step);

  // A copy that finished: pages and bytes by source, its duration, its throughput (none if nothing was written).
  void copy_finished(const copy_summary& summary);

  // The copy engine. The totals are since the engine's start: a total smaller than the last one is ignored.
  void set_faults_total(std::uint64_t total);
  void set_deferred_faults_total(std::uint64_t total);
  void set_bounce_bytes(std::uint64_t bytes);
  // The engine's own histogram: `bounds` in seconds, ascending; `counts` one per bound and one for all above it, not
  // cumulative; `sum` in seconds. Replaces what was set before. REQUIRES: counts.size() == bounds.size() + 1
  void set_fault_service(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum);

  // Instances and their guests.
  void instances(std::string_view state, std::uint64_t count);
  void instance_exited(std::string_view reason);
  void guest_longest_stall(std::string_view sandbox, std::chrono::nanoseconds stall);
  void forget_guest(std::string_view sandbox);  // its stall is no longer reported

  // The store.
  void store_usage(std::uint64_t free_bytes, std::uint64_t reserved_bytes, std::uint64_t snapshots);

  // The API.
  void http_request(std::string_view route, std::string_view method, int status, double seconds);

  void build_info(std::string_view version, std::string_view vmm);

  // Everything as Prometheus reads it: text exposition format 0.0.4.
  std::string text() const;

 private:
  struct registry;
  std::unique_ptr<registry> registry_;
};

}  // namespace coppice
