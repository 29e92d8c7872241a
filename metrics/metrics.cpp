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
  for (const std::string_view name : definition.labels) labels.emplace(name, *value++);
  return labels;
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
    for (const metric_definition& definition : catalog()) families.push_back(make_family(definition));
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
    const auto& definition = definition_of(id);
    return family<histogram_family>(id).Add(
        labels_of(definition, values),
        prometheus::Histogram::BucketBoundaries(definition.buckets.begin(), definition.buckets.end()));
  }
  void set_total(metric_id id, std::uint64_t total) {
    const std::lock_guard lock(mutex);
    double& last = last_totals[id];
    const auto now = static_cast<double>(total);
    auto& series = counter(id);
    if (now <= last) return;
    series.Increment(now - last);
    last = now;
  }
};

metrics::metrics() : registry_(std::make_unique<registry>()) {}
metrics::~metrics() = default;

void metrics::branch_finished(branch_mode mode, std::string_view outcome) {
  registry_->counter(metric_id::branches, {to_string(mode), outcome}).Increment();
}

void metrics::branch_in_flight(int delta) {
  registry_->gauge(metric_id::branches_in_flight).Increment(delta);
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
  const double seconds = std::chrono::duration<double>(summary.copy).count();
  registry_->histogram(metric_id::branch_copy).Observe(seconds);
  if (summary.written_bytes == 0 || seconds <= 0) return;
  registry_->histogram(metric_id::copy_throughput).Observe(static_cast<double>(summary.written_bytes) / seconds);
}

void metrics::set_faults_total(std::uint64_t total) {
  registry_->set_total(metric_id::faults, total);
}

void metrics::set_deferred_faults_total(std::uint64_t total) {
  registry_->set_total(metric_id::deferred_faults, total);
}

void metrics::set_bounce_bytes(std::uint64_t bytes) {
  registry_->gauge(metric_id::bounce_bytes).Set(static_cast<double>(bytes));
}

void metrics::set_fault_service(std::span<const double> bounds, std::span<const std::uint64_t> counts, double sum) {
  assert(counts.size() == bounds.size() + 1);
  const std::lock_guard lock(registry_->mutex);
  registry_->fault_service = {{bounds.begin(), bounds.end()}, {counts.begin(), counts.end()}, sum};
}

void metrics::instances(std::string_view state, std::uint64_t count) {
  registry_->gauge(metric_id::instances, {state}).Set(static_cast<double>(count));
}

void metrics::instance_exited(std::string_view reason) {
  registry_->counter(metric_id::instance_exits, {reason}).Increment();
}

void metrics::guest_longest_stall(std::string_view sandbox, std::chrono::nanoseconds stall) {
  const std::lock_guard lock(registry_->mutex);  // against forget_guest, which destroys the series
  registry_->gauge(metric_id::guest_longest_stall, {sandbox}).Set(std::chrono::duration<double>(stall).count());
}

void metrics::forget_guest(std::string_view sandbox) {
  const std::lock_guard lock(registry_->mutex);
  auto& series = registry_->gauge(metric_id::guest_longest_stall, {sandbox});
  registry_->family<gauge_family>(metric_id::guest_longest_stall).Remove(&series);
}

void metrics::store_usage(std::uint64_t free_bytes, std::uint64_t reserved_bytes, std::uint64_t snapshots) {
  registry_->gauge(metric_id::store_free).Set(static_cast<double>(free_bytes));
  registry_->gauge(metric_id::store_reserved).Set(static_cast<double>(reserved_bytes));
  registry_->gauge(metric_id::snapshots).Set(static_cast<double>(snapshots));
}

void metrics::http_request(std::string_view route, std::string_view method, int status, double seconds) {
  registry_->counter(metric_id::http_requests, {route, method, std::to_string(status)}).Increment();
  registry_->histogram(metric_id::http_request, {route, method}).Observe(seconds);
}

void metrics::build_info(std::string_view version, std::string_view vmm) {
  registry_->gauge(metric_id::build_info, {version, vmm}).Set(1);
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
