// full and diff branches, and where a diff's base comes from.
#include "tests/actors/rig.hpp"

namespace coppice {
namespace {

using fakes::conduct;
using fakes::rig;
using std::chrono::milliseconds;
using testing::HasSubstr;

class modes : public testing::Test {
 protected:
  snapshot_info ready(const std::string& tag, branch_mode mode) {
    auto branch = with.branch(parent, tag, mode);
    with.pass(milliseconds(10));
    EXPECT_TRUE(branch->has_value() && (*branch)->ok()) << ((*branch) ? (*branch)->error().message() : "no answer");
    return (**branch).value();
  }
  rig with;
  std::string parent = with.parent();
};

TEST_F(modes, a_full_branch_leaves_the_copy_engine_alone) {
  with.what->calls.clear();
  ready("f1", branch_mode::full);
  EXPECT_THAT(with.what->calls, testing::ElementsAre("reserve", "pause", "snapshot", "Full", "resume", "publish"));
}

TEST_F(modes, a_branch_tells_when_each_step_began_and_how_long_it_took) {
  const auto info = ready("f1", branch_mode::full);
  std::vector<std::string_view> steps;
  auto end = std::chrono::microseconds(0);
  for (const auto& each : info.timeline) {
    steps.push_back(each.step);
    EXPECT_GE(each.began, end) << each.step;
    end = each.began + each.took;
  }
  EXPECT_THAT(steps, testing::ElementsAre("reserve", "pause", "snapshot", "resume", "publish"));
}

TEST_F(modes, the_first_diff_has_the_start_snapshot_as_its_base) {
  const auto info = ready("d1", branch_mode::diff);
  EXPECT_TRUE(with.what->called("Diff"));
  EXPECT_EQ(info.note, "");
  EXPECT_FALSE(std::filesystem::exists(with.store.folder() / "d1" / "diff.bin"));
}

TEST_F(modes, a_diff_becomes_the_base_of_the_next_one) {
  ready("d1", branch_mode::diff);
  EXPECT_EQ(ready("d2", branch_mode::diff).note, "");
  EXPECT_EQ(with.what->count("Diff"), 2);
}

TEST_F(modes, a_base_may_be_deleted_and_makes_the_next_diff_a_full_one) {
  ready("d1", branch_mode::diff);
  EXPECT_TRUE(with.store.remove("d1").ok());
  EXPECT_THAT(ready("d2", branch_mode::diff).note, HasSubstr("no base for a diff"));
  EXPECT_EQ(with.what->count("Diff"), 1);
  EXPECT_EQ(with.what->count("Full"), 1);
}

TEST_F(modes, a_base_that_was_replaced_under_its_tag_is_none) {
  ready("d1", branch_mode::diff);
  EXPECT_TRUE(with.store.remove("d1").ok());
  with.store.add_base("d1", {1});
  EXPECT_THAT(ready("d2", branch_mode::diff).note, HasSubstr("another one"));
}

TEST_F(modes, a_diff_that_failed_after_its_snapshot_makes_the_next_one_full) {
  with.what->orders["publish"] = conduct::fail;
  auto failed = with.branch(parent, "d1", branch_mode::diff);
  with.pass(milliseconds(10));
  ASSERT_FALSE((*failed)->ok());
  with.what->orders.clear();
  EXPECT_THAT(ready("d2", branch_mode::diff).note, HasSubstr("full image"));
  EXPECT_TRUE(with.what->called("Full"));
  EXPECT_EQ(ready("d3", branch_mode::diff).note, "");
}

TEST_F(modes, a_live_branch_keeps_the_base_of_diffs) {
  ready("l1", branch_mode::live);
  EXPECT_EQ(ready("d1", branch_mode::diff).note, "");
}

TEST_F(modes, a_full_branch_that_fails_leaves_the_parent_running) {
  for (const auto* call : {"reserve", "pause", "snapshot", "publish"}) {
    with.what->orders[call] = conduct::fail;
    auto branch = with.branch(parent, "f1", branch_mode::full);
    with.pass(milliseconds(400));
    ASSERT_TRUE(branch->has_value()) << call;
    EXPECT_THAT((*branch)->error().message(), HasSubstr(std::string("step ") + call));
    EXPECT_EQ(with.what->vm_states.begin()->second, "Running");
    EXPECT_EQ(with.what->stagings, 0U);
    with.what->orders.clear();
  }
}

TEST_F(modes, a_full_snapshot_may_take_longer_than_the_pause_budget) {
  with.what->orders["snapshot"] = conduct::late;
  auto branch = with.branch(parent, "f1", branch_mode::full);
  with.pass(milliseconds(5000), milliseconds(50));
  with.what->release();
  with.pass(milliseconds(10));
  ASSERT_TRUE(branch->has_value());
  EXPECT_TRUE((*branch)->ok());
}

TEST_F(modes, branches_of_one_vm_pause_it_one_after_the_other) {
  with.what->orders["snapshot"] = conduct::late;
  auto first = with.branch(parent, "f1", branch_mode::full);
  auto second = with.branch(parent, "f2", branch_mode::full);
  EXPECT_EQ(with.what->count("pause"), 1);
  with.what->orders.clear();
  with.what->release();
  with.pass(milliseconds(10));
  EXPECT_TRUE((*first)->ok());
  EXPECT_TRUE((*second)->ok());
  EXPECT_EQ(with.what->count("pause"), 2);
}

TEST(vmm_without_live, refuses_a_live_branch_and_names_what_is_missing) {
  rig with(false);
  const auto parent = with.parent();
  auto live = with.branch(parent, "b1");
  ASSERT_TRUE(live->has_value());
  EXPECT_EQ((*live)->error().code, errc::unsupported);
  EXPECT_THAT((*live)->error().message(), HasSubstr("VmstateOnly"));
  auto full = with.branch(parent, "b1", branch_mode::full);
  with.pass(milliseconds(10));
  EXPECT_TRUE((*full)->ok());
}

}  // namespace
}  // namespace coppice
