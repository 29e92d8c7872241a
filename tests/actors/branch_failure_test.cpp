// A live branch, with every step failing, missing its deadline, answering late, and the VM dying in it.
// After each: the parent runs, unprotected; nothing of the branch is left; the error names the step.
#include "tests/actors/rig.hpp"

namespace coppice {
namespace {

using fakes::conduct;
using fakes::rig;
using std::chrono::milliseconds;
using testing::HasSubstr;

struct step_case {
  std::string step;  // as the error names it
  std::string call;  // what the fake calls it
};

void PrintTo(const step_case& which, std::ostream* out) {
  *out << which.step;
}

class live_branch : public testing::TestWithParam<step_case> {
 protected:
  // The parent as it must be after an undo, whatever happened.
  void expect_no_trace(bool parent_lives = true) {
    EXPECT_EQ(with.what->stagings, 0U);
    EXPECT_EQ(with.what->live_sessions, 0U);
    EXPECT_EQ(with.what->protections, 0U);
    EXPECT_FALSE(with.listed("b1"));
    EXPECT_FALSE(std::filesystem::exists(with.store.folder() / ".staging-b1"));
    const auto all = with.sandboxes();
    ASSERT_EQ(all.size(), parent_lives ? 1U : 0U);
    if (!parent_lives) return;
    EXPECT_EQ(all.front().state, sandbox_state::running);
    EXPECT_EQ(with.what->vm_states.begin()->second, "Running");
  }
  void expect_next_branch_works() {
    with.what->orders.clear();
    auto next = with.branch(parent, "b1");
    with.pass(milliseconds(10));
    ASSERT_TRUE(next->has_value());
    EXPECT_TRUE((*next)->ok()) << (*next)->error().message();
  }

  rig with;
  std::string parent = with.parent();
};

class asked_step : public live_branch {};  // steps that answer by a completion; the store's calls block

TEST_F(live_branch, goes_the_steps_in_order_and_is_listed_when_ready) {
  with.what->calls.clear();
  auto branch = with.branch(parent, "b1");
  ASSERT_TRUE(branch->has_value());
  ASSERT_TRUE((*branch)->ok()) << (*branch)->error().message();
  EXPECT_THAT(with.what->calls, testing::ElementsAre("reserve", "begin", "prearm", "describe", "pause", "snapshot",
                                                     "VmstateOnly", "rearm", "resume", "copy", "publish"));
  EXPECT_EQ((**branch)->status, snapshot_status::ready);
  EXPECT_TRUE((**branch)->memory_checksum.has_value());
  EXPECT_EQ(with.what->live_sessions, 0U);
  EXPECT_EQ(with.what->stagings, 0U);
  EXPECT_TRUE(with.listed("b1"));
}

TEST_P(live_branch, that_fails_in_a_step_leaves_no_trace) {
  with.what->orders[GetParam().call] = conduct::fail;
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(400));
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step " + GetParam().step));
  if (GetParam().call == "resume") {
    EXPECT_EQ(with.sandboxes().front().state, sandbox_state::stuck);
    with.what->orders.clear();
    with.pass(milliseconds(1500));
  }
  expect_no_trace();
  expect_next_branch_works();
}

TEST_P(asked_step, whose_step_never_answers_is_undone_at_its_deadline) {
  with.what->orders[GetParam().call] = conduct::never;
  auto branch = with.branch(parent, "b1");
  EXPECT_FALSE(branch->has_value());
  with.pass(GetParam().step == "copy" ? milliseconds(40'000) : milliseconds(3'000), milliseconds(10));
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step " + GetParam().step));
  with.what->orders.clear();
  with.pass(milliseconds(1500));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_P(asked_step, whose_step_answers_late_is_undone_and_stays_so) {
  with.what->orders[GetParam().call] = conduct::late;
  auto branch = with.branch(parent, "b1");
  with.pass(GetParam().step == "copy" ? milliseconds(40'000) : milliseconds(3'000), milliseconds(10));
  ASSERT_TRUE(branch->has_value());
  EXPECT_FALSE((*branch)->ok());
  with.what->orders.clear();
  with.what->release();
  with.pass(milliseconds(1500));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_P(asked_step, whose_vm_dies_in_a_step_fails_and_leaves_no_trace) {
  with.what->orders[GetParam().call] = conduct::die;
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(400));
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step " + GetParam().step));
  EXPECT_THAT((*branch)->error().message(), HasSubstr("ended"));
  expect_no_trace(false);
}

TEST_F(live_branch, of_a_vmm_that_does_not_answer_fails_and_its_guest_is_never_paused) {
  with.what->orders["describe"] = conduct::never;
  with.what->calls.clear();
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(3'000), milliseconds(10));
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step prearm"));
  EXPECT_FALSE(with.what->called("pause"));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, whose_reservation_comes_late_leaves_no_trace) {
  with.pool->held = true;
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(2100));
  ASSERT_TRUE(branch->has_value());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step reserve"));
  with.pool->held = false;
  with.settle();
  EXPECT_TRUE(with.what->called("reserve"));  // it was carried out, too late
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, whose_publishing_hangs_is_undone_at_its_deadline) {
  with.what->on_call = [this] {
    if (with.what->calls.back() == "copy") with.pool->held = true;
  };
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(31'000), milliseconds(500));
  with.what->on_call = nullptr;
  with.pool->held = false;
  with.settle();
  ASSERT_TRUE(branch->has_value());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step publish"));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, that_is_published_after_its_deadline_is_taken_back) {
  with.what->on_call = [this] {
    if (with.what->calls.back() != "publish") return;
    with.what->on_call = nullptr;
    with.scheduler().advance_time(std::chrono::seconds(31));  // while the store is at work
    while (with.scheduler().try_run_once()) {
    }
  };
  auto branch = with.branch(parent, "b1");
  with.settle();
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_THAT((*branch)->error().message(), HasSubstr("step publish"));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, is_cut_off_when_the_whole_pause_is_over_its_budget) {
  // Each step within its own deadline, all together not: 45 + 95 + 45 ms.
  const std::map<std::string, milliseconds> takes{
      {"pause", milliseconds(45)}, {"snapshot", milliseconds(95)}, {"rearm", milliseconds(45)}};
  with.what->on_call = [this, takes] {
    if (const auto found = takes.find(with.what->calls.back()); found != takes.end())
      with.scheduler().advance_time(found->second);
  };
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(300));
  with.what->on_call = nullptr;
  ASSERT_TRUE(branch->has_value());
  ASSERT_FALSE((*branch)->ok());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
  EXPECT_THAT((*branch)->error().message(), HasSubstr("budget"));
  EXPECT_FALSE(with.what->called("copy"));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, whose_parent_can_not_be_resumed_leaves_it_stuck_until_it_can) {
  with.what->orders["resume"] = conduct::fail;
  auto branch = with.branch(parent, "b1");
  with.pass(milliseconds(60'000), milliseconds(50));
  EXPECT_EQ(with.sandboxes().front().state, sandbox_state::stuck);
  EXPECT_GT(with.what->count("resume"), 50);  // backoff grows to 1 s, and it never gives up
  EXPECT_LT(with.what->count("resume"), 100);
  EXPECT_EQ(with.what->protections, 0U);
  auto refused = with.branch(parent, "b2");
  ASSERT_TRUE(refused->has_value());
  EXPECT_EQ((*refused)->error().code, errc::conflict);
  with.what->orders.clear();
  with.pass(milliseconds(1100));
  expect_no_trace();
  expect_next_branch_works();
}

TEST_F(live_branch, is_not_resumed_by_a_retry_that_was_due_for_the_one_before) {
  with.what->orders["resume"] = conduct::late;
  auto first = with.branch(parent, "b1");
  for (int i = 0; i < 100 && with.sandboxes().front().state != sandbox_state::stuck; ++i) with.pass(milliseconds(5));
  ASSERT_EQ(with.sandboxes().front().state, sandbox_state::stuck);
  with.what->orders = {{"snapshot", conduct::late}};
  with.what->release();  // it runs after all, right before the retry
  with.settle();
  auto second = with.branch(parent, "b2");
  const auto resumes = with.what->count("resume");
  with.pass(milliseconds(50));
  EXPECT_EQ(with.what->count("resume"), resumes);
  EXPECT_EQ(with.what->vm_states.begin()->second, "Paused");
  with.what->orders.clear();
  with.what->release();
  with.settle();
  ASSERT_TRUE(second->has_value());
  EXPECT_TRUE((*second)->ok()) << (*second)->error().message();
}

INSTANTIATE_TEST_SUITE_P(each_step, live_branch,
                         testing::Values(step_case{"reserve", "reserve"}, step_case{"prearm", "prearm"},
                                         step_case{"pause", "pause"}, step_case{"snapshot", "snapshot"},
                                         step_case{"rearm", "rearm"}, step_case{"resume", "resume"},
                                         step_case{"copy", "copy"}, step_case{"publish", "publish"}),
                         [](const auto& which) { return which.param.step; });
INSTANTIATE_TEST_SUITE_P(each_step, asked_step,
                         testing::Values(step_case{"prearm", "prearm"}, step_case{"pause", "pause"},
                                         step_case{"snapshot", "snapshot"}, step_case{"rearm", "rearm"},
                                         step_case{"resume", "resume"}, step_case{"copy", "copy"}),
                         [](const auto& which) { return which.param.step; });

}  // namespace
}  // namespace coppice
