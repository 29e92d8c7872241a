// What a person on call sees of branches and sandboxes in the metrics, however they ended.
#include "metrics/catalog.hpp"
#include "tests/actors/rig.hpp"

namespace coppice {
namespace {

using fakes::conduct;
using fakes::rig;
using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

class branch_metrics : public testing::Test {
 protected:
  std::string text() const { return with.meters.text(); }
  std::string of_parent(const std::string& name) const { return name + "{sandbox=\"" + parent + "\"}"; }

  rig with;
  std::string parent = with.parent();
};

TEST_F(branch_metrics, a_ready_branch_is_counted_with_its_pause_and_its_stall) {
  with.branch(parent, "b1");
  EXPECT_THAT(text(), HasSubstr("coppice_branches_total{mode=\"live\",outcome=\"ready\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_count{mode=\"live\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_stall_seconds_count{mode=\"live\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branches_in_flight 0\n"));
}

// The worst pauses are those of branches that fail: an objective without them would be kept by failing.
TEST_F(branch_metrics, the_pause_of_a_branch_that_missed_its_deadline_is_counted_in_full) {
  with.what->orders["snapshot"] = conduct::never;
  with.branch(parent, "b1");
  with.pass(milliseconds(400));
  EXPECT_THAT(text(), HasSubstr("coppice_branches_total{mode=\"live\",outcome=\"failed\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_failures_total{reason=\"deadline_exceeded\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_deadline_misses_total{step=\"snapshot\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"0.05\"} 0\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_count{mode=\"live\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_stall_seconds_count{mode=\"live\"} 0\n"));
}

TEST_F(branch_metrics, a_stuck_sandbox_is_named_until_it_runs_and_its_whole_pause_is_counted) {
  EXPECT_THAT(text(), Not(HasSubstr(parent)));
  with.what->orders["resume"] = conduct::fail;
  with.branch(parent, "b1");
  with.pass(milliseconds(1200));
  EXPECT_THAT(text(), HasSubstr(of_parent("coppice_sandbox_stuck") + " 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_sandboxes{state=\"stuck\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_count{mode=\"live\"} 0\n"));
  with.what->orders.clear();
  with.pass(milliseconds(1500));
  EXPECT_THAT(text(), Not(HasSubstr(parent)));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"1\"} 0\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_count{mode=\"live\"} 1\n"));
}

TEST_F(branch_metrics, a_branch_without_space_is_counted_by_that_reason) {
  with.what->orders["reserve"] = conduct::fail;
  with.branch(parent, "b1");
  EXPECT_THAT(text(), HasSubstr("coppice_branch_failures_total{reason=\"no_space\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branch_pause_seconds_count{mode=\"live\"} 0\n"));
}

TEST_F(branch_metrics, a_deleted_sandbox_cancels_its_branch_and_takes_its_series_along) {
  with.what->orders["copy"] = conduct::never;
  with.branch(parent, "b1");
  with.send<void, ask::delete_sandbox>(parent);
  with.pass(milliseconds(100));
  EXPECT_THAT(text(), HasSubstr("coppice_branches_total{mode=\"live\",outcome=\"cancelled\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_branches_in_flight 0\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_sandbox_exits_total{reason=\"stopped\"} 1\n"));
  EXPECT_THAT(text(), Not(HasSubstr(parent)));
}

TEST_F(branch_metrics, a_stuck_sandbox_that_is_deleted_takes_its_series_along) {
  with.what->orders["resume"] = conduct::fail;
  with.branch(parent, "b1");
  with.pass(milliseconds(400));
  EXPECT_THAT(text(), HasSubstr(of_parent("coppice_sandbox_stuck") + " 1\n"));
  with.send<void, ask::delete_sandbox>(parent);
  with.pass(milliseconds(100));
  EXPECT_THAT(text(), Not(HasSubstr(parent)));
}

TEST_F(branch_metrics, a_start_is_timed_from_its_request_and_only_if_it_succeeds) {
  EXPECT_THAT(text(), HasSubstr("coppice_sandbox_start_seconds_count 1\n")) << "the parent's";
  with.what->orders["load"] = conduct::late;
  with.create();
  with.pass(milliseconds(200));
  with.what->orders.clear();
  with.what->release();
  with.settle();
  EXPECT_THAT(text(), HasSubstr("coppice_sandbox_start_seconds_bucket{le=\"0.1\"} 1\n"));
  EXPECT_THAT(text(), HasSubstr("coppice_sandbox_start_seconds_bucket{le=\"0.25\"} 2\n"));
  with.what->orders["load"] = conduct::fail;
  with.create();
  EXPECT_THAT(text(), HasSubstr("coppice_sandbox_start_seconds_count 2\n"));
}

TEST_F(branch_metrics, vms_that_wait_to_be_started_are_counted) {
  EXPECT_THAT(text(), HasSubstr("coppice_queue_length{queue=\"starts\"} 0\n"));
  with.what->orders["load"] = conduct::never;
  with.create(daemon_limits{}.parallel_starts + 12);
  EXPECT_THAT(text(), HasSubstr("coppice_queue_length{queue=\"starts\"} 12\n"));
}

// The catalogue may not include actors/, so it repeats their names.
std::vector<std::string_view> values_of(metric_id id, std::string_view label) {
  for (const auto& each : catalog()[static_cast<std::size_t>(id)].labels) {
    if (each.name == label) return {each.values.begin(), each.values.end()};
  }
  return {};
}

TEST(catalogued_labels, steps_are_those_of_the_table) {
  std::vector<std::string_view> steps;
  for (const auto& row : step_table) steps.push_back(row.name);
  EXPECT_EQ(values_of(metric_id::branch_step, "step"), steps);
}

TEST(catalogued_labels, states_are_those_of_a_sandbox) {
  std::vector<std::string_view> states;
  for (const auto state :
       {sandbox_state::starting, sandbox_state::running, sandbox_state::branching, sandbox_state::stuck}) {
    states.push_back(to_string(state));
  }
  EXPECT_EQ(values_of(metric_id::sandboxes, "state"), states);
}

TEST(catalogued_labels, reasons_are_the_codes_of_errors) {
  std::vector<std::string_view> reasons;
  for (int code = 0; code <= static_cast<int>(errc::internal); ++code) {
    if (static_cast<errc>(code) != errc::cancelled) reasons.push_back(to_string(static_cast<errc>(code)));
  }
  EXPECT_EQ(values_of(metric_id::branch_failures, "reason"), reasons);
}

}  // namespace
}  // namespace coppice
