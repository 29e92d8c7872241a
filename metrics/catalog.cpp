#include "metrics/catalog.hpp"

#include <array>

namespace coppice {
namespace {

constexpr auto by_mode_and_outcome = std::to_array<std::string_view>({"mode", "outcome"});
constexpr auto by_mode = std::to_array<std::string_view>({"mode"});
constexpr auto by_step = std::to_array<std::string_view>({"step"});
constexpr auto by_source = std::to_array<std::string_view>({"source"});
constexpr auto by_state = std::to_array<std::string_view>({"state"});
constexpr auto by_reason = std::to_array<std::string_view>({"reason"});
constexpr auto by_sandbox = std::to_array<std::string_view>({"sandbox"});
constexpr auto by_request = std::to_array<std::string_view>({"route", "method", "status"});
constexpr auto by_route = std::to_array<std::string_view>({"route", "method"});
constexpr auto build_labels = std::to_array<std::string_view>({"version", "vmm"});

// The pause's budget is 150 ms by default, its goal a few: fine below 10 ms, and up to what no one must see.
constexpr auto pause_buckets = std::to_array(
    {100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 3e-3, 5e-3, 7.5e-3, 10e-3, 15e-3, 25e-3, 50e-3, 100e-3, 150e-3, 250e-3, 1.0});
constexpr auto copy_buckets =
    std::to_array({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0});
constexpr auto throughput_buckets = std::to_array({32e6, 64e6, 128e6, 256e6, 512e6, 1e9, 2e9, 4e9, 8e9, 16e9});
constexpr auto http_buckets = std::to_array({1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0});

constexpr auto counter = metric_kind::counter;
constexpr auto gauge = metric_kind::gauge;
constexpr auto histogram = metric_kind::histogram;

constexpr auto definitions = std::to_array<metric_definition>({
    {metric_id::branches,
     "coppice_branches_total",
     counter,
     "branches",
     by_mode_and_outcome,
     {},
     "Branches that ended, by how: ready, failed or cancelled."},
    {metric_id::branches_in_flight,
     "coppice_branches_in_flight",
     gauge,
     "branches",
     {},
     {},
     "Branches between their admission and their end."},
    {metric_id::branch_pause, "coppice_branch_pause_seconds", histogram, "seconds", by_mode, pause_buckets,
     "Time the daemon held the parent paused for one branch, pause sent to resume answered."},
    {metric_id::branch_step, "coppice_branch_step_seconds", histogram, "seconds", by_step, pause_buckets,
     "Duration of each step of a branch; snapshot, rearm and resume add up to the pause."},
    {metric_id::branch_deadline_misses,
     "coppice_branch_deadline_misses_total",
     counter,
     "steps",
     by_step,
     {},
     "Steps that ran into their deadline; the branch was undone."},
    {metric_id::branch_step_failures,
     "coppice_branch_step_failures_total",
     counter,
     "steps",
     by_step,
     {},
     "Steps that failed other than by their deadline; the branch was undone."},
    {metric_id::branch_copy,
     "coppice_branch_copy_seconds",
     histogram,
     "seconds",
     {},
     copy_buckets,
     "Time from the resume to the last page written."},
    {metric_id::copied_pages,
     "coppice_copied_pages_total",
     counter,
     "pages",
     by_source,
     {},
     "Pages settled by copies that finished, by source: bulk, captured, zero or hole."},
    {metric_id::copied_bytes,
     "coppice_copied_bytes_total",
     counter,
     "bytes",
     by_source,
     {},
     "Guest memory settled by copies that finished, by source; zero and hole cost no write."},
    {metric_id::copy_throughput,
     "coppice_copy_throughput_bytes_per_second",
     histogram,
     "bytes per second",
     {},
     throughput_buckets,
     "Bytes written per second of copying, one observation a branch."},
    {metric_id::faults, "coppice_faults_total", counter, "faults", {}, {}, "Write-protection faults served."},
    {metric_id::fault_service,
     "coppice_fault_service_seconds",
     histogram,
     "seconds",
     {},
     {},
     "Service time of a write-protection fault, message read to page lifted."},
    {metric_id::deferred_faults,
     "coppice_deferred_faults_total",
     counter,
     "faults",
     {},
     {},
     "Faults that waited because the bounce pool was empty."},
    {metric_id::bounce_bytes,
     "coppice_bounce_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Bounce memory that holds captured pages now."},
    {metric_id::instances, "coppice_instances", gauge, "instances", by_state, {}, "Instances by state."},
    {metric_id::instance_exits,
     "coppice_instance_exits_total",
     counter,
     "instances",
     by_reason,
     {},
     "Instances whose VMM ended, by reason."},
    {metric_id::guest_longest_stall,
     "coppice_guest_longest_stall_seconds",
     gauge,
     "seconds",
     by_sandbox,
     {},
     "Longest stall that the journal guest of a sandbox saw itself."},
    {metric_id::store_free,
     "coppice_store_free_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Free space of the store's file system, minus what is reserved."},
    {metric_id::store_reserved,
     "coppice_store_reserved_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Space reserved for snapshots in the making."},
    {metric_id::snapshots, "coppice_snapshots", gauge, "snapshots", {}, {}, "Snapshots that are ready."},
    {metric_id::http_requests,
     "coppice_http_requests_total",
     counter,
     "requests",
     by_request,
     {},
     "HTTP requests answered."},
    {metric_id::http_request, "coppice_http_request_seconds", histogram, "seconds", by_route, http_buckets,
     "Time from a request's arrival to its answer."},
    {metric_id::build_info,
     "coppice_build_info",
     gauge,
     "constant 1",
     build_labels,
     {},
     "What runs here; the value is always 1."},
});

static_assert(definitions.size() == static_cast<std::size_t>(metric_id::count_));
static_assert(
    [] {
      for (std::size_t i = 0; i < definitions.size(); ++i) {
        if (static_cast<std::size_t>(definitions[i].id) != i) return false;
      }
      return true;
    }(),
    "the rows stand in the order of metric_id");

}  // namespace

std::span<const metric_definition> catalog() noexcept {
  return definitions;
}

std::string_view to_string(metric_kind kind) noexcept {
  switch (kind) {
    case metric_kind::counter:
      return "counter";
    case metric_kind::gauge:
      return "gauge";
    case metric_kind::histogram:
      return "histogram";
  }
  return "unknown";
}

}  // namespace coppice
