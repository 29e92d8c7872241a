// Every metric of the daemon: one table, from which the registry is built and the documentation is written.
// To add a metric: add an id, a row in catalog.cpp, and a method in metrics.hpp; the tests see to the rest.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace coppice {

enum class metric_id : std::size_t {
  branches,
  branches_in_flight,
  branch_pause,
  branch_step,
  branch_deadline_misses,
  branch_step_failures,
  branch_copy,
  copied_pages,
  copied_bytes,
  copy_throughput,
  faults,
  fault_service,
  deferred_faults,
  bounce_bytes,
  instances,
  instance_exits,
  guest_longest_stall,
  store_free,
  store_reserved,
  snapshots,
  http_requests,
  http_request,
  build_info,
  count_,  // how many there are
};

enum class metric_kind { counter, gauge, histogram };

struct metric_definition {
  metric_id id;
  std::string_view name;  // ends in its unit, counters in _total
  metric_kind kind;
  std::string_view unit;                     // seconds, bytes, or what is counted
  std::span<const std::string_view> labels;  // in the order in which values are given
  std::span<const double> buckets;           // upper bounds, histograms only; empty if the source brings its own
  std::string_view help;
};

// All of them, ordered by id: catalog()[i].id is metric_id(i).
std::span<const metric_definition> catalog() noexcept;

std::string_view to_string(metric_kind kind) noexcept;

}  // namespace coppice
