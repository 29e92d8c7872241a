// The daemon's metrics. Callers name what happened; names, units, labels and buckets stand in catalog.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/branch_stats.hpp"
#include "base/error.hpp"
#include "metrics/process_figures.hpp"

namespace coppice {

// One daemon's (or one test's) registry. Thread-safe; every call is a few hash look-ups, so not for use per page.
// Label values given as text must be few: states, step names, route patterns ("/v1/sandboxes/{id}"), never raw paths.
// Counters and histograms whose label values are known start at 0: Prometheus sees no increase in a series that is born
// with its first event. Every other metric appears in text() once it has been reported.
class metrics {
 public:
  metrics();
  metrics(const metrics&) = delete;
  metrics& operator=(const metrics&) = delete;
  ~metrics();

  // Branches. Steps: reserve, prearm, pause, snapshot, rearm, resume, copy, publish.
  void branch_in_flight(int delta);  // +1 at the admission, -1 at the end
  void branch_ready(branch_mode mode, const pause_breakdown& pause, const std::optional<copy_summary>& copy);
  void branch_failed(branch_mode mode, errc reason);
  void pause_seconds(branch_mode mode, double seconds);
  void step_seconds(std::string_view step, double seconds);
  void deadline_missed(std::string_view step);
  void step_failed(std::string_view step);

  // A copy that finished: pages and bytes by source, its duration, its throughput (none if nothing was written).
  void copy_finished(const copy_summary& summary);

  // The copy engine. The totals are since the engine's start: a total smaller than the last one is ignored.
  void set_faults_total(std::uint64_t total);
  void set_deferred_faults_total(std::uint64_t total);
  void set_saved_ahead_pages_total(std::uint64_t total);
  void set_written_bytes_total(std::uint64_t total);
  void set_bounce_bytes(std::uint64_t bytes);
  // The engine's own histogram: `bounds` in seconds, ascending; `counts` one per bound and one for all above it, not
  // cumulative; `sum` in seconds. Replaces what was set before. REQUIRES: counts.size() == bounds.size() + 1
  void set_fault_service(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum);

  // Sandboxes and their guests.
  void sandboxes(std::string_view state, std::uint64_t count);
  void sandbox_exited(std::string_view reason);
  void sandbox_stuck(std::string_view sandbox, bool stuck);  // false: also when it is gone
  void sandbox_started(std::chrono::duration<double> after);
  void exec_ended(std::chrono::duration<double> after);
  void guest_longest_stall(std::chrono::nanoseconds stall);

  void queue_length(std::string_view queue, std::size_t tasks);  // starts or disk

  // The store.
  void store_usage(std::uint64_t free_bytes, std::uint64_t reserved_bytes, std::uint64_t size_bytes,
                   std::uint64_t snapshots);

  // The API.
  void http_request(std::string_view route, std::string_view method, int status, double seconds);
  void set_http_connections(std::size_t open);
  void refused_connection(std::string_view reason);  // "limit" or "tls"
  void set_dropped_audit_lines_total(std::uint64_t total);

  void build_info(std::string_view version, std::string_view vmm);
  void process(const process_figures& figures);

  // Everything as Prometheus reads it: text exposition format 0.0.4.
  std::string text() const;

 private:
  struct registry;
  std::unique_ptr<registry> registry_;
};

}  // namespace coppice
