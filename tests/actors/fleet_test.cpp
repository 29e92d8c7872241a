// Admission, the registry, deletion, and the end.
#include "tests/actors/rig.hpp"

namespace coppice {
namespace {

using fakes::conduct;
using fakes::rig;
using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(fleet, creates_all_sandboxes_or_none) {
  rig with;
  with.host.starts_until_failure = 3;
  auto made = with.create(4);
  with.pass(milliseconds(10));
  ASSERT_TRUE(made->has_value());
  EXPECT_FALSE((*made)->ok());
  EXPECT_TRUE(with.sandboxes().empty());
  EXPECT_TRUE(with.what->vm_states.empty());
}

TEST(fleet, refuses_n_of_zero_or_too_large_and_unknown_snapshots) {
  rig with(true, {.branches_per_parent = 4, .branches = 16, .sandboxes = 3, .parallel_starts = 8});
  EXPECT_EQ((*with.create(0))->error().code, errc::invalid_argument);
  EXPECT_EQ((*with.create(4))->error().code, errc::invalid_argument);
  EXPECT_EQ((*with.create(1, "none"))->error().code, errc::not_found);
  EXPECT_TRUE((*with.create(2))->ok());
  EXPECT_EQ((*with.create(2))->error().code, errc::unavailable);
}

TEST(fleet, creations_at_once_do_not_pass_the_limit_of_sandboxes) {
  rig with(true, {.sandboxes = 2});
  with.pool->held = true;  // both are admitted before either exists
  const auto one = with.create(2), other = with.create(2);
  with.pool->held = false;
  with.settle();
  ASSERT_TRUE(one->has_value() && other->has_value());
  EXPECT_TRUE((*one)->ok());
  ASSERT_FALSE((*other)->ok());
  EXPECT_EQ((*other)->error().code, errc::unavailable);
  EXPECT_EQ(with.sandboxes().size(), 2U);
}

TEST(fleet, a_start_that_fails_in_any_stage_leaves_nothing) {
  for (const auto* stage : {"spawn", "describe", "load", "uffd", "attach", "resume"}) {
    rig with;
    with.what->orders[stage] = conduct::fail;
    auto made = with.create();
    with.pass(milliseconds(10));
    ASSERT_TRUE(made->has_value()) << stage;
    EXPECT_FALSE((*made)->ok()) << stage;
    EXPECT_TRUE(with.sandboxes().empty()) << stage;
    EXPECT_TRUE(with.what->vm_states.empty()) << stage;
    EXPECT_TRUE(std::filesystem::is_empty(with.run.path())) << stage;
  }
}

TEST(fleet, limits_branches_of_a_sandbox_and_of_the_host) {
  rig with(true, {.branches_per_parent = 2, .branches = 3, .sandboxes = 10, .parallel_starts = 8});
  const auto one = with.parent();
  const auto other = with.parent();
  with.what->orders["copy"] = conduct::late;
  with.branch(one, "b1");
  with.branch(one, "b2");
  EXPECT_EQ((*with.branch(one, "b3"))->error().code, errc::unavailable);
  with.branch(other, "b3");
  EXPECT_EQ((*with.branch(other, "b4"))->error().code, errc::unavailable);
  with.what->orders.clear();
  with.what->release();
  with.pass(milliseconds(10));
  auto next = with.branch(one, "b5");
  with.pass(milliseconds(10));
  EXPECT_TRUE((*next)->ok());
}

TEST(fleet, keeps_to_new_limits_from_then_on_and_ends_nothing_for_them) {
  rig with;
  const auto one = with.parent();
  const auto other = with.parent();
  with.what->orders["copy"] = conduct::late;
  with.branch(one, "b1");
  with.branch(one, "b2");
  caf::anon_send(with.actors, set_limits{{.branches_per_parent = 2, .branches = 3, .sandboxes = 1}});
  with.settle();
  EXPECT_EQ(with.sandboxes().size(), 2U);
  EXPECT_EQ((*with.create())->error().code, errc::unavailable);
  EXPECT_EQ((*with.branch(one, "b3"))->error().code, errc::unavailable);
  with.branch(other, "b3");
  EXPECT_EQ((*with.branch(other, "b4"))->error().code, errc::unavailable);
  caf::anon_send(with.actors, set_limits{{.sandboxes = 3}});
  with.settle();
  EXPECT_TRUE((*with.create())->ok());
  with.branch(other, "b4");
  with.what->orders.clear();
  with.what->release();
  with.pass(milliseconds(10));
  for (const char* tag : {"b1", "b2", "b3", "b4"}) EXPECT_TRUE(with.listed(tag)) << tag;
}

TEST(fleet, more_vms_start_at_a_time_as_soon_as_they_may) {
  rig with(true, {.parallel_starts = 1});
  with.what->orders["load"] = conduct::never;
  with.create(3);
  EXPECT_THAT(with.meters.text(), testing::HasSubstr("coppice_queue_length{queue=\"starts\"} 2\n"));
  caf::anon_send(with.actors, set_limits{{.parallel_starts = 3}});
  with.settle();
  EXPECT_THAT(with.meters.text(), testing::HasSubstr("coppice_queue_length{queue=\"starts\"} 0\n"));
}

TEST(fleet, refuses_bad_and_taken_tags) {
  rig with;
  const auto parent = with.parent();
  for (const auto& bad : {std::string("../x"), std::string(), std::string(65, 'a'), std::string("a/b")})
    EXPECT_EQ((*with.branch(parent, bad))->error().code, errc::invalid_argument) << bad;
  auto taken = with.branch(parent, "base");
  with.pass(milliseconds(10));
  EXPECT_EQ((*taken)->error().code, errc::already_exists);
  EXPECT_EQ((*with.branch("sb-none", "b1"))->error().code, errc::not_found);
}

TEST(fleet, answers_at_the_resume_if_nobody_waits_and_lists_a_failure_until_its_tag_is_used_again) {
  rig with;
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  auto branch = with.branch(parent, "b1", branch_mode::live, false);
  ASSERT_TRUE(branch->has_value());
  EXPECT_EQ((**branch)->status, snapshot_status::writing);
  with.what->settled = 5;
  EXPECT_EQ(with.snapshots().back().copied_pages, 5U);
  with.what->orders["publish"] = conduct::fail;
  with.what->release();
  with.pass(milliseconds(10));
  EXPECT_EQ(with.snapshots().back().status, snapshot_status::failed);
  EXPECT_THAT(with.snapshots().back().failure, HasSubstr("step publish"));
  EXPECT_TRUE(with.snapshots().back().failure_code.has_value());
  EXPECT_EQ(with.snapshots().back().timeline.back().step, "publish") << "the timeline ends with what failed";
  with.what->orders.clear();
  with.branch(parent, "b1");
  with.pass(milliseconds(10));
  EXPECT_EQ(with.snapshots().size(), 2U);
  for (const auto& info : with.snapshots()) EXPECT_EQ(info.status, snapshot_status::ready);
}

TEST(fleet, a_copy_that_waits_for_its_limit_is_not_stuck) {
  rig with;
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  with.what->waits_for_limit = true;
  auto branch = with.branch(parent, "b1");
  with.pass(std::chrono::minutes(10), std::chrono::milliseconds(500));
  EXPECT_FALSE(branch->has_value());
  with.what->waits_for_limit = false;
  with.pass(std::chrono::seconds(40), std::chrono::milliseconds(500));
  ASSERT_TRUE(branch->has_value());
  EXPECT_EQ((*branch)->error().code, errc::deadline_exceeded);
}

TEST(fleet, deleting_a_sandbox_ends_its_branch_and_its_vm) {
  rig with;
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::never;
  auto branch = with.branch(parent, "b1");
  auto deleted = with.send<void, ask::delete_sandbox>(parent);
  with.pass(milliseconds(10));
  ASSERT_TRUE(branch->has_value());
  EXPECT_THAT((*branch)->error().message(), HasSubstr("sandbox deleted"));
  ASSERT_TRUE(deleted->has_value());
  EXPECT_TRUE((*deleted)->ok());
  EXPECT_TRUE(with.sandboxes().empty());
  EXPECT_TRUE(with.what->vm_states.empty());
  EXPECT_EQ(with.what->stagings, 0U);
}

TEST(fleet, a_snapshot_in_use_can_not_be_deleted) {
  rig with;
  const auto parent = with.parent();
  auto refused = with.send<void, ask::delete_snapshot>(std::string("base"), false);
  EXPECT_EQ((*refused)->error().code, errc::conflict);
  EXPECT_THAT((*refused)->error().message(), HasSubstr(parent));
  with.send<void, ask::delete_sandbox>(parent);
  EXPECT_TRUE((*with.send<void, ask::delete_snapshot>(std::string("base"), false))->ok());
}

TEST(fleet, deletes_a_snapshot_with_its_descendants_or_none_of_them) {
  rig with;
  const auto first = with.parent();
  with.branch(first, "b1");
  with.pass(milliseconds(10));
  const auto second = (**with.create(1, "b1"))->front().id;
  with.branch(second, "b2");
  with.pass(milliseconds(10));
  auto info = with.send<snapshot_info, ask::snapshot>(std::string("b1"));
  EXPECT_THAT((**info)->ancestors, testing::ElementsAre("base"));
  EXPECT_THAT((**info)->dependents, testing::ElementsAre("b2"));
  with.send<void, ask::delete_sandbox>(first);
  auto refused = with.send<void, ask::delete_snapshot>(std::string("base"), true);
  EXPECT_EQ((*refused)->error().code, errc::conflict);
  EXPECT_THAT((*refused)->error().message(), HasSubstr(second));
  EXPECT_TRUE(with.listed("base") && with.listed("b1") && with.listed("b2"));
  with.send<void, ask::delete_sandbox>(second);
  EXPECT_TRUE((*with.send<void, ask::delete_snapshot>(std::string("base"), true))->ok());
  EXPECT_TRUE(with.snapshots().empty());
  EXPECT_EQ((*with.send<void, ask::delete_snapshot>(std::string("base"), true))->error().code, errc::not_found);
}

TEST(fleet, tells_of_each_change_in_its_order) {
  rig with;
  std::vector<std::string> heard;
  with.with->events->subscribe([&](const plane_event& event) {
    heard.push_back(std::string(to_string(event.kind)) + " " + event.tag);
    EXPECT_EQ(event.sandbox.empty(), event.kind == event_kind::snapshot_deleted);
  });
  const auto parent = with.parent();
  with.branch(parent, "b1");
  with.pass(milliseconds(10));
  with.what->orders["copy"] = conduct::fail;
  with.branch(parent, "b2");
  with.pass(milliseconds(10));
  with.send<void, ask::delete_snapshot>(std::string("b1"), false);
  with.send<void, ask::delete_sandbox>(parent);
  EXPECT_THAT(heard,
              testing::ElementsAre("sandbox.created base", "sandbox.running base", "branch.started b1",
                                   "branch.resumed b1", "branch.ready b1", "branch.started b2", "branch.resumed b2",
                                   "branch.failed b2", "snapshot.deleted b1", "sandbox.deleted base"));
}

TEST(fleet, stops_in_the_middle_of_branches) {
  for (const auto* step : {"prearm", "pause", "snapshot", "rearm", "resume", "copy"}) {
    rig with;
    const auto parent = with.parent();
    with.what->orders[step] = conduct::never;
    auto branch = with.branch(parent, "b1");
    auto stopped = with.send<void, ask::stop>();
    with.pass(milliseconds(3000));
    ASSERT_TRUE(stopped->has_value()) << step;
    ASSERT_TRUE(branch->has_value()) << step;
    EXPECT_FALSE((*branch)->ok()) << step;
    EXPECT_TRUE(with.what->vm_states.empty()) << step;
    EXPECT_EQ(with.what->stagings, 0U) << step;
    EXPECT_EQ(with.what->protections, 0U) << step;
    EXPECT_EQ((*with.create())->error().code, errc::unavailable);
  }
}

TEST(fleet, makes_a_base_snapshot_from_a_kernel) {
  rig with;
  const auto kernel = with.run.path() / "kernel.elf";
  std::ofstream(kernel) << std::string(
                               "\x7f"
                               "ELF\x02\x01",
                               6)
                        << std::string(12, '\0') << '\x3e' << std::string(45, '\0');
  create_snapshot_request request;
  request.tag = "made";
  request.kernel = kernel;
  request.memory_bytes = 2 * mib;
  auto made = with.send<snapshot_info, ask::create_snapshot>(request);
  with.pass(milliseconds(1100));
  ASSERT_TRUE(made->has_value());
  ASSERT_TRUE((*made)->ok()) << (*made)->error().message();
  EXPECT_TRUE(with.listed("made"));
  EXPECT_TRUE(with.what->vm_states.empty());
}

TEST(fleet, says_what_is_wrong_with_a_kernel) {
  rig with;
  create_snapshot_request request;
  request.tag = "made";
  request.kernel = "/nowhere/vmlinux";
  EXPECT_THAT((*with.send<snapshot_info, ask::create_snapshot>(request))->error().message(),
              HasSubstr("/nowhere/vmlinux"));
  request.kernel = "/proc/self/cmdline";
  EXPECT_THAT((*with.send<snapshot_info, ask::create_snapshot>(request))->error().message(), HasSubstr("no ELF"));
  EXPECT_FALSE(with.listed("made"));
}

}  // namespace
}  // namespace coppice
