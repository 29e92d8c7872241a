#include "metrics/metrics.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <set>
#include <sstream>
#include <thread>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "metrics/catalog.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using testing::HasSubstr;
using testing::Not;
using namespace std::chrono_literals;

copy_summary some_copy() {
  copy_summary copy;
  copy.bulk_pages = 100;
  copy.captured_pages = 20;
  copy.zero_pages = 3;
  copy.hole_pages = 4;
  copy.written_bytes = 491'520;
  copy.copy = 1ms;
  copy.longest_fault = 6ms;
  return copy;
}

pause_breakdown some_pause() {
  return {.pause = 1ms, .snapshot = 2ms, .rearm = 500us, .resume = 500us, .total = 4ms};
}

// Reports everything that can be reported.
void report_all(metrics& all) {
  all.branch_in_flight(+1);
  all.branch_ready(branch_mode::live, some_pause(), some_copy());
  all.branch_failed(branch_mode::live, errc::no_space);
  all.branch_failed(branch_mode::full, errc::cancelled);
  all.pause_seconds(branch_mode::live, 0.004);
  for (const char* step : {"reserve", "prearm", "pause", "snapshot", "rearm", "resume", "copy", "publish"}) {
    all.step_seconds(step, 0.001);
  }
  all.deadline_missed("snapshot");
  all.step_failed("publish");
  all.copy_finished(some_copy());
  all.set_faults_total(7);
  all.set_deferred_faults_total(1);
  all.set_saved_ahead_pages_total(5);
  all.set_written_bytes_total(4096);
  all.set_bounce_bytes(8192);
  all.set_fault_service(std::array{10e-6, 50e-6}, std::array<std::uint64_t, 3>{4, 2, 1}, 0.0002);
  all.sandboxes("running", 3);
  all.sandbox_exited("died");
  all.guest_longest_stall(1500us);
  all.sandbox_started(1500ms);
  all.exec_ended(2ms);
  all.sandbox_stuck("sb-1", true);
  all.queue_length("starts", 5);
  all.store_usage(1000, 10, 4000, 2);
  all.http_request("/v1/sandboxes/{id}", "GET", 200, 0.002);
  all.set_http_connections(3);
  all.refused_connection("limit");
  all.set_dropped_audit_lines_total(7);
  all.build_info("0.1.0", "Firecracker \"1.12\"");
  all.process({.started_at_unix = 1.5, .cpu_seconds = 2.5, .memory_bytes = 3, .open_fds = 4, .max_fds = 5});
}

// The metric names in a text, from its TYPE lines: "name type".
std::set<std::string> types_in(const std::string& text) {
  std::set<std::string> types;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) types.insert(line.substr(7));
  }
  return types;
}

TEST(metrics, every_metric_of_the_catalogue_appears_and_no_other) {
  metrics all;
  report_all(all);
  std::set<std::string> expected;
  for (const auto& definition : catalog()) {
    expected.insert(std::string(definition.name) + " " + std::string(to_string(definition.kind)));
  }
  EXPECT_EQ(types_in(all.text()), expected);
}

TEST(metrics, every_help_text_of_the_catalogue_appears) {
  metrics all;
  report_all(all);
  const auto text = all.text();
  for (const auto& definition : catalog()) {
    EXPECT_THAT(text, HasSubstr("# HELP " + std::string(definition.name) + " " + std::string(definition.help)));
  }
}

TEST(metrics, promtool_accepts_the_text) {
  if (::access("/usr/bin/promtool", X_OK) != 0) GTEST_SKIP() << "/usr/bin/promtool is not installed";
  metrics all;
  report_all(all);
  const temp_dir folder;
  const auto text = folder.path() / "metrics.txt";
  ASSERT_TRUE(write_text_file(text, all.text()).ok());
  const auto says = folder.path() / "says.txt";
  const int status =
      std::system(("/usr/bin/promtool check metrics < " + text.string() + " > " + says.string() + " 2>&1").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 0) << *read_text_file(says);
  EXPECT_EQ(*read_text_file(says), "") << "promtool has advice";
}

TEST(metrics, the_catalogue_keeps_the_naming_rules) {
  std::set<std::string_view> names;
  for (const auto& definition : catalog()) {
    EXPECT_TRUE(names.insert(definition.name).second) << definition.name << " stands twice";
    EXPECT_TRUE(definition.name.starts_with("coppice_") || definition.name.starts_with("process_")) << definition.name;
    EXPECT_EQ(definition.name.ends_with("_total"), definition.kind == metric_kind::counter) << definition.name;
    if (definition.unit == "seconds") {
      EXPECT_THAT(definition.name, HasSubstr("_seconds"));
    }
    if (definition.unit == "bytes") {
      EXPECT_THAT(definition.name, HasSubstr("_bytes"));
    }
    EXPECT_FALSE(definition.unit.empty()) << definition.name;
    for (std::size_t i = 0; i < definition.labels.size(); ++i) {  // what the registry relies on
      if (definition.labels[i].name != sandbox_label) continue;
      EXPECT_EQ(i, 0U) << definition.name;
      EXPECT_NE(definition.kind, metric_kind::histogram) << definition.name << ": a histogram a sandbox is too much";
    }
    EXPECT_TRUE(definition.help.ends_with(".")) << definition.name;
    EXPECT_TRUE(std::ranges::is_sorted(definition.buckets)) << definition.name;
    const bool own_buckets = definition.kind == metric_kind::histogram && definition.id != metric_id::fault_service;
    EXPECT_EQ(!definition.buckets.empty(), own_buckets) << definition.name;
  }
}

TEST(metrics, pauses_are_resolved_from_100_microseconds_to_a_second) {
  for (const metric_id id : {metric_id::branch_pause, metric_id::branch_stall, metric_id::branch_step}) {
    const auto& buckets = catalog()[static_cast<std::size_t>(id)].buckets;
    EXPECT_DOUBLE_EQ(buckets.front(), 100e-6);
    EXPECT_THAT(buckets, testing::Contains(1.0));
  }
}

TEST(metrics, values_arrive_under_their_labels) {
  metrics all;
  report_all(all);
  all.branch_in_flight(+1);
  all.branch_in_flight(-1);
  all.branch_failed(branch_mode::diff, errc::io);
  const auto text = all.text();
  for (const char* line :
       {"coppice_branches_total{mode=\"live\",outcome=\"ready\"} 1\n",
        "coppice_branches_total{mode=\"full\",outcome=\"cancelled\"} 1\n",
        "coppice_branch_failures_total{reason=\"no_space\"} 1\n",
        "coppice_branches_in_flight 1\n",
        "coppice_branch_stall_seconds_bucket{mode=\"live\",le=\"0.005\"} 0\n",
        "coppice_branch_stall_seconds_bucket{mode=\"live\",le=\"0.0075\"} 1\n",
        "coppice_branches_total{mode=\"diff\",outcome=\"failed\"} 1\n",
        "coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"0.005\"} 1\n",
        "coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"0.003\"} 0\n",
        "coppice_branch_step_seconds_count{step=\"rearm\"} 1\n",
        "coppice_branch_deadline_misses_total{step=\"snapshot\"} 1\n",
        "coppice_branch_step_failures_total{step=\"publish\"} 1\n",
        "coppice_copied_pages_total{source=\"bulk\"} 100\n",
        "coppice_copied_bytes_total{source=\"captured\"} 81920\n",
        "coppice_copied_pages_total{source=\"zero\"} 3\n",
        "coppice_copied_pages_total{source=\"hole\"} 4\n",
        "coppice_branch_copy_seconds_sum 0.001\n",
        "coppice_copy_throughput_bytes_per_second_sum 491520000\n",
        "coppice_faults_total 7\n",
        "coppice_deferred_faults_total 1\n",
        "coppice_saved_ahead_pages_total 5\n",
        "coppice_bounce_bytes 8192\n",
        "coppice_sandboxes{state=\"running\"} 3\n",
        "coppice_sandbox_exits_total{reason=\"died\"} 1\n",
        "coppice_written_bytes_total 4096\n",
        "coppice_guest_longest_stall_seconds_sum 0.0015\n",
        "coppice_sandbox_start_seconds_bucket{le=\"2.5\"} 1\n",
        "coppice_sandbox_start_seconds_bucket{le=\"1\"} 0\n",
        "coppice_exec_seconds_bucket{le=\"0.0025\"} 1\n",
        "coppice_sandbox_stuck{sandbox=\"sb-1\"} 1\n",
        "coppice_queue_length{queue=\"starts\"} 5\n",
        "coppice_store_size_bytes 4000\n",
        "process_cpu_seconds_total 2.5\n",
        "process_open_fds 4\n",
        "coppice_store_free_bytes 1000\n",
        "coppice_store_reserved_bytes 10\n",
        "coppice_snapshots 2\n",
        "coppice_http_requests_total{method=\"GET\",route=\"/v1/sandboxes/{id}\",status=\"200\"} 1\n",
        "coppice_http_connections 3\n",
        "coppice_http_refused_connections_total{reason=\"limit\"} 1\n",
        "coppice_http_refused_connections_total{reason=\"tls\"} 0\n",
        "coppice_audit_dropped_lines_total 7\n",
        "coppice_build_info{version=\"0.1.0\",vmm=\"Firecracker \\\"1.12\\\"\"} 1\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(metrics, the_engines_histogram_is_shown_cumulative) {
  metrics all;
  all.set_fault_service(std::array{10e-6, 50e-6}, std::array<std::uint64_t, 3>{4, 2, 1}, 0.0002);
  const auto text = all.text();
  EXPECT_THAT(text, HasSubstr("coppice_fault_service_seconds_count 7\n"));
  EXPECT_THAT(text, HasSubstr("coppice_fault_service_seconds_sum 0.0002\n"));
  EXPECT_THAT(text, HasSubstr("coppice_fault_service_seconds_bucket{le=\"1e-05\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("coppice_fault_service_seconds_bucket{le=\"5e-05\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("coppice_fault_service_seconds_bucket{le=\"+Inf\"} 7\n"));
  all.set_fault_service(std::array{10e-6, 50e-6}, std::array<std::uint64_t, 3>{5, 2, 1}, 0.0003);
  EXPECT_THAT(all.text(), HasSubstr("coppice_fault_service_seconds_count 8\n")) << "it replaces, it doesn't add";
}

TEST(metrics, a_total_never_goes_back) {
  metrics all;
  all.set_faults_total(0);
  EXPECT_THAT(all.text(), HasSubstr("coppice_faults_total 0\n"));
  all.set_faults_total(7);
  all.set_faults_total(5);
  EXPECT_THAT(all.text(), HasSubstr("coppice_faults_total 7\n"));
  all.set_faults_total(9);
  EXPECT_THAT(all.text(), HasSubstr("coppice_faults_total 9\n"));
}

TEST(metrics, a_copy_that_wrote_nothing_has_no_throughput) {
  metrics all;
  all.copy_finished({});
  EXPECT_THAT(all.text(), HasSubstr("coppice_copy_throughput_bytes_per_second_count 0\n"));
  EXPECT_THAT(all.text(), HasSubstr("coppice_branch_copy_seconds_count 1\n"));
}

// Prometheus takes the first value of a series for its start: what is born as 1 never increased.
TEST(metrics, what_can_be_counted_starts_at_zero) {
  const auto text = metrics().text();
  for (const char* line : {"coppice_branches_total{mode=\"live\",outcome=\"failed\"} 0\n",
                           "coppice_branch_failures_total{reason=\"no_space\"} 0\n",
                           "coppice_branch_deadline_misses_total{step=\"resume\"} 0\n",
                           "coppice_branch_pause_seconds_count{mode=\"diff\"} 0\n",
                           "coppice_sandbox_exits_total{reason=\"died\"} 0\n", "coppice_deferred_faults_total 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("sandbox=")));
  EXPECT_THAT(text, Not(HasSubstr("route=")));
}

TEST(metrics, a_sandbox_has_a_series_only_while_it_is_stuck) {
  metrics all;
  all.sandbox_stuck("sb-1", true);
  all.sandbox_stuck("sb-1", true);
  all.sandbox_stuck("sb-2", true);
  all.sandbox_stuck("sb-1", false);
  all.sandbox_stuck("never-seen", false);
  EXPECT_THAT(all.text(), HasSubstr("coppice_sandbox_stuck{sandbox=\"sb-2\"} 1\n"));
  EXPECT_THAT(all.text(), Not(HasSubstr("sb-1")));
  EXPECT_THAT(all.text(), Not(HasSubstr("never-seen")));
}

TEST(metrics, the_figures_of_the_process_are_those_of_this_process) {
  const auto figures = read_process_figures();
  const auto now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_LE(figures.started_at_unix, now + 1);
  EXPECT_GT(figures.started_at_unix, now - 600);
  EXPECT_GT(figures.memory_bytes, 100'000U);
  EXPECT_GE(figures.open_fds, 3U);
  EXPECT_GE(figures.max_fds, figures.open_fds);
  const unique_fd one_more(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(read_process_figures().open_fds, figures.open_fds + 1);
}

TEST(metrics, two_registries_do_not_share_anything) {
  metrics first;
  const metrics second;
  const auto before = second.text();
  first.step_failed("copy");
  EXPECT_EQ(second.text(), before);
}

TEST(metrics, many_threads_may_report_and_read_at_once) {
  metrics all;
  constexpr int threads = 4;
  constexpr int rounds = 200;
  {
    std::vector<std::jthread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        for (int i = 0; i < rounds; ++i) {
          all.step_failed("copy");
          all.set_faults_total(static_cast<std::uint64_t>(i + 1));
          all.set_fault_service(std::array{1e-5}, std::array<std::uint64_t, 2>{1, 1}, 1e-4);
          all.sandbox_stuck("sb-" + std::to_string(t), true);
          all.guest_longest_stall(1ms);
          all.sandbox_stuck("sb-" + std::to_string((t + 1) % threads), false);
          if (i % 50 == 0) (void)all.text();
        }
      });
    }
  }
  EXPECT_THAT(all.text(), HasSubstr("coppice_branch_step_failures_total{step=\"copy\"} 800\n"));
  EXPECT_THAT(all.text(), HasSubstr("coppice_faults_total 200\n"));
}

}  // namespace
}  // namespace coppice
