#include "metrics/catalog.hpp"

#include <array>

namespace coppice {
namespace {

constexpr auto modes = std::to_array<std::string_view>({"live", "full", "diff"});
constexpr auto outcomes = std::to_array<std::string_view>({"ready", "failed", "cancelled"});
constexpr auto reasons =
    std::to_array<std::string_view>({"invalid_argument", "not_found", "already_exists", "conflict", "unsupported",
                                     "unavailable", "no_space", "deadline_exceeded", "io", "corrupt", "internal"});
constexpr auto steps =
    std::to_array<std::string_view>({"reserve", "prearm", "pause", "snapshot", "rearm", "resume", "copy", "publish"});
constexpr auto sources = std::to_array<std::string_view>({"bulk", "captured", "zero", "hole"});
constexpr auto states = std::to_array<std::string_view>({"starting", "running", "branching", "stuck"});
constexpr auto ends = std::to_array<std::string_view>({"stopped", "died"});
constexpr auto refusals = std::to_array<std::string_view>({"limit", "tls"});
constexpr auto queues = std::to_array<std::string_view>({"starts", "disk"});

constexpr label_definition mode{"mode", modes};
constexpr label_definition outcome{"outcome", outcomes};
constexpr label_definition step{"step", steps};
constexpr label_definition of_sandbox{sandbox_label, {}};
constexpr label_definition route{"route", {}};
constexpr label_definition method{"method", {}};

constexpr auto by_mode_and_outcome = std::to_array<label_definition>({mode, outcome});
constexpr auto by_mode = std::to_array<label_definition>({mode});
constexpr auto by_failure = std::to_array<label_definition>({{"reason", reasons}});
constexpr auto by_step = std::to_array<label_definition>({step});
constexpr auto by_source = std::to_array<label_definition>({{"source", sources}});
constexpr auto by_state = std::to_array<label_definition>({{"state", states}});
constexpr auto by_end = std::to_array<label_definition>({{"reason", ends}});
constexpr auto by_sandbox = std::to_array<label_definition>({of_sandbox});
constexpr auto by_queue = std::to_array<label_definition>({{"queue", queues}});
constexpr auto by_refusal = std::to_array<label_definition>({{"reason", refusals}});
constexpr auto by_request = std::to_array<label_definition>({route, method, {"status", {}}});
constexpr auto by_route = std::to_array<label_definition>({route, method});
constexpr auto build_labels = std::to_array<label_definition>({{"version", {}}, {"vmm", {}}});

// The pause's budget is 150 ms by default, its goal a few: fine below 10 ms, and up to what no one must see.
constexpr auto pause_buckets = std::to_array(
    {100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 3e-3, 5e-3, 7.5e-3, 10e-3, 15e-3, 25e-3, 50e-3, 100e-3, 150e-3, 250e-3, 1.0});
// The same, and further: the copy and the publishing of a large guest take seconds.
constexpr auto step_buckets = std::to_array({100e-6, 200e-6, 500e-6, 1e-3,   2e-3,   3e-3, 5e-3, 7.5e-3, 10e-3, 15e-3,
                                             25e-3,  50e-3,  100e-3, 150e-3, 250e-3, 1.0,  2.5,  10.0,   30.0,  100.0});
constexpr auto copy_buckets =
    std::to_array({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0});
constexpr auto start_buckets = std::to_array({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0});
// A program may run for a day.
constexpr auto exec_buckets = std::to_array(
    {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0});
constexpr auto throughput_buckets = std::to_array({32e6, 64e6, 128e6, 256e6, 512e6, 1e9, 2e9, 4e9, 8e9, 16e9});
constexpr auto http_buckets = std::to_array({1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0});

constexpr auto counter = metric_kind::counter;
constexpr auto gauge = metric_kind::gauge;
constexpr auto a_histogram = metric_kind::histogram;

constexpr auto definitions = std::to_array<metric_definition>({
    {metric_id::branches,
     "coppice_branches_total",
     counter,
     "branches",
     by_mode_and_outcome,
     {},
     "Branches that ended, by how: ready, failed or cancelled."},
    {metric_id::branch_failures,
     "coppice_branch_failures_total",
     counter,
     "branches",
     by_failure,
     {},
     "Branches that failed, by the kind of the error; the parent runs on."},
    {metric_id::branches_in_flight,
     "coppice_branches_in_flight",
     gauge,
     "branches",
     {},
     {},
     "Branches between their admission and their end."},
    {metric_id::branch_pause, "coppice_branch_pause_seconds", a_histogram, "seconds", by_mode, pause_buckets,
     "Time for which a branch held its parent, pause sent to resume answered; failed ones, too."},
    {metric_id::branch_stall, "coppice_branch_stall_seconds", a_histogram, "seconds", by_mode, pause_buckets,
     "Longest time that a ready branch kept a vCPU of its parent waiting: its pause or a write fault."},
    {metric_id::branch_step, "coppice_branch_step_seconds", a_histogram, "seconds", by_step, step_buckets,
     "Duration of each step of a branch; pause, snapshot, rearm and resume add up to the pause."},
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
     a_histogram,
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
    {metric_id::written_bytes,
     "coppice_written_bytes_total",
     counter,
     "bytes",
     {},
     {},
     "Bytes that live copies handed to the disk, those of branches in flight included."},
    {metric_id::copy_throughput,
     "coppice_copy_throughput_bytes_per_second",
     a_histogram,
     "bytes per second",
     {},
     throughput_buckets,
     "Bytes written per second of copying, one observation a branch."},
    {metric_id::faults, "coppice_faults_total", counter, "faults", {}, {}, "Write-protection faults served."},
    {metric_id::fault_service,
     "coppice_fault_service_seconds",
     a_histogram,
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
    {metric_id::saved_ahead,
     "coppice_saved_ahead_pages_total",
     counter,
     "pages",
     {},
     {},
     "Pages saved ahead of the disk, as guests met protected ones again and again."},
    {metric_id::bounce_bytes,
     "coppice_bounce_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Bounce memory that holds captured pages, and those saved ahead, now."},
    {metric_id::sandboxes, "coppice_sandboxes", gauge, "sandboxes", by_state, {}, "Sandboxes by state."},
    {metric_id::sandbox_exits,
     "coppice_sandbox_exits_total",
     counter,
     "sandboxes",
     by_end,
     {},
     "Sandboxes whose VMM ended: stopped by the daemon, or died by itself."},
    {metric_id::sandbox_stuck,
     "coppice_sandbox_stuck",
     gauge,
     "constant 1",
     by_sandbox,
     {},
     "There while the sandbox is paused and its resume is being retried; the value is always 1."},
    {metric_id::sandbox_start,
     "coppice_sandbox_start_seconds",
     a_histogram,
     "seconds",
     {},
     start_buckets,
     "Time from the request for a sandbox to its guest running, waiting for others included."},
    {metric_id::exec,
     "coppice_exec_seconds",
     a_histogram,
     "seconds",
     {},
     exec_buckets,
     "Time from the request for a program in a guest to its end, of those that ran."},
    {metric_id::guest_longest_stall,
     "coppice_guest_longest_stall_seconds",
     a_histogram,
     "seconds",
     {},
     pause_buckets,
     "Longest stall that a journal guest saw itself, one observation each time that it is asked."},
    {metric_id::queue_length,
     "coppice_queue_length",
     gauge,
     "tasks",
     by_queue,
     {},
     "What waits: VMs to be started, and work for the threads that block on the disk."},
    {metric_id::store_free,
     "coppice_store_free_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Free space of the store's file system for the daemon, minus what is reserved."},
    {metric_id::store_reserved,
     "coppice_store_reserved_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Space reserved for snapshots in the making."},
    {metric_id::store_size, "coppice_store_size_bytes", gauge, "bytes", {}, {}, "Size of the store's file system."},
    {metric_id::snapshots, "coppice_snapshots", gauge, "snapshots", {}, {}, "Snapshots that are ready."},
    {metric_id::http_requests,
     "coppice_http_requests_total",
     counter,
     "requests",
     by_request,
     {},
     "HTTP requests answered."},
    {metric_id::http_request, "coppice_http_request_seconds", a_histogram, "seconds", by_route, http_buckets,
     "Time from a request's arrival to its answer."},
    {metric_id::http_connections,
     "coppice_http_connections",
     gauge,
     "connections",
     {},
     {},
     "Connections of the API's clients that are open."},
    {metric_id::refused_connections,
     "coppice_http_refused_connections_total",
     counter,
     "connections",
     by_refusal,
     {},
     "Connections closed before a request: as many as may be were open, or TLS failed."},
    {metric_id::dropped_audit_lines,
     "coppice_audit_dropped_lines_total",
     counter,
     "lines",
     {},
     {},
     "Lines of requests that changed nothing, dropped while the audit log's disk was behind."},
    {metric_id::build_info,
     "coppice_build_info",
     gauge,
     "constant 1",
     build_labels,
     {},
     "What runs here; the value is always 1."},
    {metric_id::start_time,
     "process_start_time_seconds",
     gauge,
     "seconds since 1970",
     {},
     {},
     "When the daemon started."},
    {metric_id::cpu,
     "process_cpu_seconds_total",
     counter,
     "seconds",
     {},
     {},
     "CPU time of the daemon, without its VMMs."},
    {metric_id::memory,
     "coppice_memory_bytes",
     gauge,
     "bytes",
     {},
     {},
     "Memory of the daemon itself (RssAnon): without guest RAM, which it maps too."},
    {metric_id::open_fds, "process_open_fds", gauge, "files", {}, {}, "Open file descriptors of the daemon."},
    {metric_id::max_fds, "process_max_fds", gauge, "files", {}, {}, "File descriptors that the daemon may open."},
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
