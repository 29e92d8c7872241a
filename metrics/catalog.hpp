// Every metric of the daemon: one table, from which the registry is built and the documentation is written.
// To add a metric: add an id, a row in catalog.cpp, and a method in metrics.hpp; the tests see to the rest.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace coppice {

enum class metric_id : std::size_t {
  branches,
  branch_failures,
  branches_in_flight,
  branch_pause,
  branch_stall,
  branch_step,
  branch_deadline_misses,
  branch_step_failures,
  branch_copy,
  copied_pages,
  copied_bytes,
  written_bytes,
  copy_throughput,
  faults,
  fault_service,
  deferred_faults,
  saved_ahead,
  bounce_bytes,
  sandboxes,
  sandbox_exits,
  sandbox_stuck,
  sandbox_start,
  exec,
  guest_longest_stall,
  queue_length,
  store_free,
  store_reserved,
  store_size,
  snapshots,
  http_requests,
  http_request,
  http_connections,
  refused_connections,
  dropped_audit_lines,
  build_info,
  start_time,
  cpu,
  memory,
  open_fds,
  max_fds,
  count_,  // how many there are
};

enum class metric_kind { counter, gauge, histogram };

struct label_definition {
  std::string_view name;
  std::span<const std::string_view> values;  // all that there are; empty if they are known only at run time
};

// The label whose values are ids of sandboxes: such a series is there while it tells of something out of order.
inline constexpr std::string_view sandbox_label = "sandbox";

struct metric_definition {
  metric_id id;
  std::string_view name;  // ends in its unit, counters in _total; process_ where Prometheus has a common name
  metric_kind kind;
  std::string_view unit;                     // seconds, bytes, or what is counted
  std::span<const label_definition> labels;  // in the order in which values are given
  std::span<const double> buckets;           // upper bounds, histograms only; empty if the source brings its own
  std::string_view help;
};

// All of them, ordered by id: catalog()[i].id is metric_id(i).
std::span<const metric_definition> catalog() noexcept;

std::string_view to_string(metric_kind kind) noexcept;

}  // namespace coppice
