#include "metrics/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cassert>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>
#include <variant>
#include <vector>

#include "base/units.hpp"
#include "metrics/catalog.hpp"

namespace coppice {
namespace {

using counter_family = prometheus::Family<prometheus::Counter>;
using gauge_family = prometheus::Family<prometheus::Gauge>;
using histogram_family = prometheus::Family<prometheus::Histogram>;
using any_family =
    std::variant<std::unique_ptr<counter_family>, std::unique_ptr<gauge_family>, std::unique_ptr<histogram_family>>;
using label_values = std::initializer_list<std::string_view>;

double in_seconds(std::chrono::duration<double> time) {
  return time.count();
}

const metric_definition& definition_of(metric_id id) {
  return catalog()[static_cast<std::size_t>(id)];
}

any_family make_family(const metric_definition& definition) {
  const std::string name(definition.name);
  const std::string help(definition.help);
  switch (definition.kind) {
    case metric_kind::counter:
      return std::make_unique<counter_family>(name, help, prometheus::Labels{});
    case metric_kind::gauge:
      return std::make_unique<gauge_family>(name, help, prometheus::Labels{});
    case metric_kind::histogram:
      break;
  }
  return std::make_unique<histogram_family>(name, help, prometheus::Labels{});
}

prometheus::Labels labels_of(const metric_definition& definition, label_values values) {
  assert(values.size() == definition.labels.size());
  prometheus::Labels labels;
  auto value = values.begin();
  for (const label_definition& label : definition.labels) {
    assert(label.values.empty() || std::ranges::find(label.values, *value) != label.values.end());
    labels.emplace(label.name, *value++);
  }
  return labels;
}

// Every combination of labels that the metric can have; none if there are values that are known only at run time.
std::vector<prometheus::Labels> all_labels_of(const metric_definition& definition) {
  std::vector<prometheus::Labels> all(1);
  for (const label_definition& label : definition.labels) {
    std::vector<prometheus::Labels> longer;
    for (const auto& labels : all) {
      for (const std::string_view value : label.values) longer.emplace_back(labels).emplace(label.name, value);
    }
    all = std::move(longer);
  }
  return all;
}

// The engine's fault histogram, counted by the engine itself in lock-free buckets, in the form that Prometheus wants.
struct fault_histogram {
  std::vector<double> bounds;
  std::vector<std::uint64_t> counts;
  double sum = 0;

  prometheus::MetricFamily collect() const {
    const auto& definition = definition_of(metric_id::fault_service);
    prometheus::MetricFamily family;
    family.name = definition.name;
    family.help = definition.help;
    family.type = prometheus::MetricType::Histogram;
    auto& histogram = family.metric.emplace_back().histogram;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      histogram.sample_count += counts[i];
      const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
      histogram.bucket.push_back({histogram.sample_count, bound});
    }
    histogram.sample_sum = sum;
    return family;
  }
};

}  // namespace

// prometheus-cpp's families lock themselves; `mutex` guards what stands beside them.
struct metrics::registry {
  std::vector<any_family> families;  // by metric_id
  mutable std::mutex mutex;
  std::map<metric_id, double> last_totals;
  fault_histogram fault_service;

  registry() {
    for (const metric_definition& definition : catalog()) {
      families.push_back(make_family(definition));
      start_at_zero(definition);
    }
  }

  template <class Family>
  Family& family(metric_id id) {
    return *std::get<std::unique_ptr<Family>>(families[static_cast<std::size_t>(id)]);
  }
  prometheus::Counter& counter(metric_id id, label_values values = {}) {
    return family<counter_family>(id).Add(labels_of(definition_of(id), values));
  }
  prometheus::Gauge& gauge(metric_id id, label_values values = {}) {
    return family<gauge_family>(id).Add(labels_of(definition_of(id), values));
  }
  prometheus::Histogram& histogram(metric_id id, label_values values = {}) {
    return histogram(definition_of(id), labels_of(definition_of(id), values));
  }
  prometheus::Histogram& histogram(const metric_definition& definition, const prometheus::Labels& labels) {
    return family<histogram_family>(definition.id)
        .Add(labels, prometheus::Histogram::BucketBoundaries(definition.buckets.begin(), definition.buckets.end()));
  }

  void start_at_zero(const metric_definition& definition) {
    if (definition.kind == metric_kind::gauge || definition.id == metric_id::fault_service) return;
    for (const auto& labels : all_labels_of(definition)) {
      if (definition.kind == metric_kind::counter)
        family<counter_family>(definition.id).Add(labels);
      else
        histogram(definition, labels);
    }
  }

  void set_total(metric_id id, double total) {
    const std::lock_guard lock(mutex);
    double& last = last_totals[id];
    if (total <= last) return;
    counter(id).Increment(total - last);
    last = total;
  }
};

metrics::metrics() : registry_(std::make_unique<registry>()) {}
metrics::~metrics() = default;

void metrics::branch_in_flight(int delta) {
  registry_->gauge(metric_id::branches_in_flight).Increment(delta);
}

void metrics::branch_ready(branch_mode mode, const pause_breakdown& pause, const std::optional<copy_summary>& copy) {
  const auto longest_fault = copy ? copy->longest_fault : std::chrono::microseconds(0);
  registry_->counter(metric_id::branches, {to_string(mode), "ready"}).Increment();
  registry_->histogram(metric_id::branch_stall, {to_string(mode)})
      .Observe(in_seconds(std::max(pause.total, longest_fault)));
}

void metrics::branch_failed(branch_mode mode, errc reason) {
  const std::string_view outcome = reason == errc::cancelled ? "cancelled" : "failed";
  registry_->counter(metric_id::branches, {to_string(mode), outcome}).Increment();
  if (reason != errc::cancelled) registry_->counter(metric_id::branch_failures, {to_string(reason)}).Increment();
}

void metrics::pause_seconds(branch_mode mode, double seconds) {
  registry_->histogram(metric_id::branch_pause, {to_string(mode)}).Observe(seconds);
}

void metrics::step_seconds(std::string_view step, double seconds) {
  registry_->histogram(metric_id::branch_step, {step}).Observe(seconds);
}

void metrics::deadline_missed(std::string_view step) {
  registry_->counter(metric_id::branch_deadline_misses, {step}).Increment();
}

void metrics::step_failed(std::string_view step) {
  registry_->counter(metric_id::branch_step_failures, {step}).Increment();
}

void metrics::copy_finished(const copy_summary& summary) {
  const auto settled = [&](std::string_view source, std::uint64_t pages) {
    registry_->counter(metric_id::copied_pages, {source}).Increment(static_cast<double>(pages));
    registry_->counter(metric_id::copied_bytes, {source}).Increment(static_cast<double>(pages * page_size));
  };
  settled("bulk", summary.bulk_pages);
  settled("captured", summary.captured_pages);
  settled("zero", summary.zero_pages);
  settled("hole", summary.hole_pages);
  const double seconds = in_seconds(summary.copy);
  registry_->histogram(metric_id::branch_copy).Observe(seconds);
  if (summary.written_bytes == 0 || seconds <= 0) return;
  registry_->histogram(metric_id::copy_throughput).Observe(static_cast<double>(summary.written_bytes) / seconds);
}

void metrics::set_faults_total(std::uint64_t total) {
  registry_->set_total(metric_id::faults, static_cast<double>(total));
}

void metrics::set_deferred_faults_total(std::uint64_t total) {
  registry_->set_total(metric_id::deferred_faults, static_cast<double>(total));
}

void metrics::set_saved_ahead_pages_total(std::uint64_t total) {
  registry_->set_total(metric_id::saved_ahead, static_cast<double>(total));
}

void metrics::set_written_bytes_total(std::uint64_t total) {
  registry_->set_total(metric_id::written_bytes, static_cast<double>(total));
}

void metrics::set_bounce_bytes(std::uint64_t bytes) {
  registry_->gauge(metric_id::bounce_bytes).Set(static_cast<double>(bytes));
}

void metrics::set_fault_service(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum) {
  assert(counts.size() == bounds.size() + 1);
  const std::lock_guard lock(registry_->mutex);
  registry_->fault_service = {{bounds.begin(), bounds.end()}, {counts.begin(), counts.end()}, sum};
}

void metrics::sandboxes(std::string_view state, std::uint64_t count) {
  registry_->gauge(metric_id::sandboxes, {state}).Set(static_cast<double>(count));
}

void metrics::sandbox_exited(std::string_view reason) {
  registry_->counter(metric_id::sandbox_exits, {reason}).Increment();
}

void metrics::sandbox_stuck(std::string_view sandbox, bool stuck) {
  const std::lock_guard lock(registry_->mutex);  // one that is added may be removed elsewhere
  auto& series = registry_->gauge(metric_id::sandbox_stuck, {sandbox});
  if (stuck)
    series.Set(1);
  else
    registry_->family<gauge_family>(metric_id::sandbox_stuck).Remove(&series);
}

void metrics::sandbox_started(std::chrono::duration<double> after) {
  registry_->histogram(metric_id::sandbox_start).Observe(in_seconds(after));
}

void metrics::exec_ended(std::chrono::duration<double> after) {
  registry_->histogram(metric_id::exec).Observe(in_seconds(after));
}

void metrics::guest_longest_stall(std::chrono::nanoseconds stall) {
  registry_->histogram(metric_id::guest_longest_stall).Observe(in_seconds(stall));
}

void metrics::queue_length(std::string_view queue, std::size_t tasks) {
  registry_->gauge(metric_id::queue_length, {queue}).Set(static_cast<double>(tasks));
}

void metrics::store_usage(std::uint64_t free_bytes, std::uint64_t reserved_bytes, std::uint64_t size_bytes,
                          std::uint64_t snapshots) {
  registry_->gauge(metric_id::store_free).Set(static_cast<double>(free_bytes));
  registry_->gauge(metric_id::store_reserved).Set(static_cast<double>(reserved_bytes));
  registry_->gauge(metric_id::store_size).Set(static_cast<double>(size_bytes));
  registry_->gauge(metric_id::snapshots).Set(static_cast<double>(snapshots));
}

void metrics::http_request(std::string_view route, std::string_view method, int status, double seconds) {
  registry_->counter(metric_id::http_requests, {route, method, std::to_string(status)}).Increment();
  registry_->histogram(metric_id::http_request, {route, method}).Observe(seconds);
}

void metrics::set_http_connections(std::size_t open) {
  registry_->gauge(metric_id::http_connections).Set(static_cast<double>(open));
}

void metrics::refused_connection(std::string_view reason) {
  registry_->counter(metric_id::refused_connections, {reason}).Increment();
}

void metrics::set_dropped_audit_lines_total(std::uint64_t total) {
  registry_->set_total(metric_id::dropped_audit_lines, static_cast<double>(total));
}

void metrics::build_info(std::string_view version, std::string_view vmm) {
  registry_->gauge(metric_id::build_info, {version, vmm}).Set(1);
}

void metrics::process(const process_figures& figures) {
  registry_->gauge(metric_id::start_time).Set(figures.started_at_unix);
  registry_->set_total(metric_id::cpu, figures.cpu_seconds);
  registry_->gauge(metric_id::memory).Set(static_cast<double>(figures.memory_bytes));
  registry_->gauge(metric_id::open_fds).Set(static_cast<double>(figures.open_fds));
  registry_->gauge(metric_id::max_fds).Set(static_cast<double>(figures.max_fds));
}

std::string metrics::text() const {
  std::vector<prometheus::MetricFamily> all;
  for (const any_family& family : registry_->families) {
    auto collected = std::visit([](const auto& typed) { return typed->Collect(); }, family);
    std::ranges::move(collected, std::back_inserter(all));
  }
  {
    const std::lock_guard lock(registry_->mutex);
    if (!registry_->fault_service.counts.empty()) all.push_back(registry_->fault_service.collect());
  }
  return prometheus::TextSerializer().Serialize(all);
}

}  // namespace coppice
