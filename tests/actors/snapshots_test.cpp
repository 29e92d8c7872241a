// What is said of snapshots in whatever state: in the making, ready, failed, of another VMM, deleted.
#include "actors/run_folder.hpp"
#include "tests/actors/rig.hpp"

namespace coppice {
namespace {

using fakes::conduct;
using fakes::rig;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class snapshots : public testing::Test {
 protected:
  auto remove(const std::string& tag, bool cascade = false) {
    auto answer = with.send<void, ask::delete_snapshot>(tag, cascade);
    with.pass(milliseconds(10));
    return answer;
  }
  auto make(const std::string& tag) {
    const auto kernel = with.run.path() / "kernel.elf";
    std::ofstream(kernel) << std::string("\x7f\x45LF\x02\x01", 6) << std::string(12, '\0') << '\x3e'
                          << std::string(45, '\0');
    create_snapshot_request request;
    request.tag = tag;
    request.kernel = kernel;
    request.memory_bytes = 2 * mib;
    return with.send<snapshot_info, ask::create_snapshot>(request);
  }
  void listen() {
    with.with->events->subscribe([this](const plane_event& event) {
      heard.push_back(std::string(to_string(event.kind)) + " " + event.tag);
      reasons.push_back(event.reason);
    });
  }

  rig with{true, {}, {{"alien", "other-vmm 1"}}};
  std::vector<std::string> heard;
  std::vector<std::string> reasons;
};

TEST_F(snapshots, one_that_becomes_ready_while_a_list_is_made_is_found) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  const auto branch = with.branch(parent, "b1");
  with.store.on_list = [this] {  // as with thousands of them: slower than what another thread publishes meanwhile
    with.what->release();
    with.settle();
  };
  const auto before = with.info("b1");
  ASSERT_TRUE(before) << before.error().message();
  EXPECT_TRUE(with.listed("b1"));
  with.what->release();
  with.settle();
  ASSERT_TRUE(branch->has_value() && (*branch)->ok());
  EXPECT_EQ(with.info("b1")->status, snapshot_status::ready);
}

TEST_F(snapshots, one_that_is_branched_is_found_at_every_moment_and_goes_from_writing_to_ready_once) {
  const auto parent = with.parent();
  auto answer = std::make_shared<std::optional<result<snapshot_info>>>();
  caf::anon_send(with.actors,
                 ask::branch{parent, branch_request{"b1", branch_mode::live, true},
                             reply<snapshot_info>([answer](result<snapshot_info> came) { *answer = came; })});
  std::vector<std::shared_ptr<std::optional<result<snapshot_info>>>> looks;
  const auto look = [&] {
    looks.push_back(std::make_shared<std::optional<result<snapshot_info>>>());
    caf::anon_send(with.actors,
                   ask::snapshot{"b1", reply<snapshot_info>([to = looks.back()](result<snapshot_info> came) {
                                   *to = std::move(came);
                                 })});
  };
  for (int steps = 0; steps < 200 && !answer->has_value(); ++steps) {
    look();
    if (!with.scheduler().try_run_once()) with.pool->run_one();
    if (steps % 3 == 0) with.pool->run_one();
  }
  with.settle();
  ASSERT_TRUE(answer->has_value() && (*answer)->ok());
  look();
  with.settle();
  bool was_ready = false;
  for (const auto& each : looks) {
    ASSERT_TRUE(each->has_value());
    ASSERT_TRUE((*each)->ok()) << (*each)->error().message();
    const bool is_ready = (**each)->status == snapshot_status::ready;
    EXPECT_TRUE(is_ready || !was_ready);
    was_ready = is_ready;
  }
  EXPECT_TRUE(was_ready);
}

TEST_F(snapshots, a_tag_in_the_making_or_ready_is_refused_before_anything_begins) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  with.branch(parent, "b1");
  listen();
  for (const auto* taken : {"b1", "base"}) {
    EXPECT_EQ((*with.branch(parent, taken))->error().code, errc::already_exists) << taken;
    EXPECT_EQ((*make(taken))->error().code, errc::already_exists) << taken;
  }
  EXPECT_THAT(heard, IsEmpty());
}

TEST_F(snapshots, a_branch_that_names_another_parent_than_its_sandbox_has_is_refused) {
  const auto parent = with.parent();
  const auto branch = [&](const std::string& of) {
    return with.send<snapshot_info, ask::branch>(parent, branch_request{"b1", branch_mode::full, true, {}, of});
  };
  const auto refused = branch("alien");
  EXPECT_EQ((*refused)->error().code, errc::invalid_argument);
  EXPECT_THAT((*refused)->error().message(), HasSubstr("comes from snapshot 'base', not from the parent_tag 'alien'"));
  EXPECT_TRUE((*branch("base"))->ok());
}

TEST_F(snapshots, children_and_checks_of_one_that_is_not_ready_are_refused_with_its_state) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  with.branch(parent, "b1", branch_mode::live, false);
  const auto refused = [&](const std::string& state) {
    for (const auto& failure :
         {(*with.create(1, "b1"))->error(), (*with.send<verify_report, ask::verify>("b1"))->error()}) {
      EXPECT_EQ(failure.code, errc::conflict);
      EXPECT_THAT(failure.message(), HasSubstr("'b1' is " + state));
    }
  };
  refused("writing");
  with.what->orders["publish"] = conduct::fail;
  with.what->release();
  with.settle();
  refused("failed: branch 'b1'");
  EXPECT_EQ((*with.create(1, "b2"))->error().code, errc::not_found);
  EXPECT_EQ((*with.send<verify_report, ask::verify>("b2"))->error().code, errc::not_found);
}

TEST_F(snapshots, one_that_another_vmm_made_is_refused_before_a_process_is_started) {
  with.what->calls.clear();
  const auto made = with.create(1, "alien");
  ASSERT_TRUE(made->has_value());
  EXPECT_EQ((*made)->error().code, errc::conflict);
  EXPECT_THAT((*made)->error().message(), HasSubstr("made by other-vmm 1, and fake-vmm 1 can't load it"));
  EXPECT_FALSE(with.what->called("spawn"));
  EXPECT_FALSE(with.info("alien")->bootable);
  EXPECT_TRUE(with.info("base")->bootable);
}

TEST_F(snapshots, deleting_a_branch_in_the_making_undoes_it_and_its_parent_runs_on) {
  for (const auto* step : {"prearm", "pause", "snapshot", "rearm", "copy"}) {
    const auto parent = with.parent();
    listen();
    with.what->orders[step] = conduct::never;
    const auto branch = with.branch(parent, "b1");
    const auto deleted = with.send<void, ask::delete_snapshot>(std::string("b1"), false);
    with.pass(milliseconds(300));
    ASSERT_TRUE(branch->has_value() && deleted->has_value()) << step;
    EXPECT_TRUE((*deleted)->ok()) << step;
    EXPECT_EQ((*branch)->error().code, errc::cancelled) << step;
    EXPECT_THAT((*branch)->error().message(), HasSubstr("its snapshot was deleted while it was made"));
    EXPECT_EQ(with.what->stagings + with.what->live_sessions + with.what->protections, 0U) << step;
    EXPECT_EQ(with.what->vm_states.begin()->second, "Running") << step;
    EXPECT_EQ(with.sandboxes().front().state, sandbox_state::running) << step;
    EXPECT_EQ(with.info("b1").error().code, errc::not_found) << step;
    EXPECT_EQ(heard.back(), "branch.failed b1") << step;
    EXPECT_THAT(reasons.back(), HasSubstr("was deleted")) << step;
    with.what->orders.clear();
    const auto next = with.branch(parent, "b1");
    with.pass(milliseconds(10));
    EXPECT_TRUE((*next)->ok()) << step;
    EXPECT_TRUE((*remove("b1"))->ok());
    with.send<void, ask::delete_sandbox>(parent);
  }
}

TEST_F(snapshots, deleting_one_that_nobody_waits_for_leaves_no_failed_one) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::never;
  with.branch(parent, "b1", branch_mode::live, false);
  EXPECT_TRUE((*remove("b1"))->ok());
  EXPECT_FALSE(with.listed("b1"));
}

TEST_F(snapshots, deleting_one_whose_publishing_is_under_way_leaves_none) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::late;
  const auto branch = with.branch(parent, "b1");
  with.what->orders.clear();
  with.pool->held = true;
  with.what->release();
  with.settle();
  const auto deleted = with.send<void, ask::delete_snapshot>(std::string("b1"), false);
  with.pool->held = false;
  with.pass(milliseconds(10));
  ASSERT_TRUE(branch->has_value() && deleted->has_value());
  EXPECT_TRUE((*deleted)->ok());
  EXPECT_EQ((*branch)->error().code, errc::cancelled);
  EXPECT_FALSE(with.store.find("b1"));
  EXPECT_FALSE(with.listed("b1"));
}

TEST_F(snapshots, deleting_a_base_in_the_making_ends_its_vm) {
  listen();
  const auto made = make("made");
  with.pass(milliseconds(100));
  EXPECT_EQ(with.info("made")->status, snapshot_status::writing);
  EXPECT_TRUE((*remove("made"))->ok());
  ASSERT_TRUE(made->has_value());
  EXPECT_EQ((*made)->error().code, errc::cancelled);
  EXPECT_THAT(with.what->vm_states, IsEmpty());
  EXPECT_EQ(with.what->stagings, 0U);
  EXPECT_FALSE(with.listed("made"));
  EXPECT_THAT(heard, ElementsAre("snapshot.failed made"));
}

TEST_F(snapshots, a_guest_that_ends_before_its_snapshot_is_taken_is_told_with_its_last_lines) {
  listen();
  const auto made = make("made");
  with.pass(milliseconds(100));
  std::string console;
  for (int line = 1; line <= 40; ++line) console += "[ 0." + std::to_string(100 + line) + "] line\r\n";
  std::ofstream(with.run.path() / "boot-1" / "log") << console;
  with.what->kill_vm();
  with.pass(milliseconds(2000));
  ASSERT_TRUE(made->has_value());
  EXPECT_EQ((*made)->error().code, errc::conflict);
  EXPECT_THAT(
      (*made)->error().message(),
      testing::AllOf(HasSubstr("'made': the guest ended before its snapshot was taken (signal 11"),
                     HasSubstr("console ends: [ 0.116] line|[ 0.117] line"), testing::EndsWith("[ 0.140] line")));
  EXPECT_THAT(with.what->vm_states, IsEmpty());
  EXPECT_EQ(with.what->stagings, 0U);
  EXPECT_THAT(heard, ElementsAre("snapshot.failed made"));
}

TEST_F(snapshots, a_guest_that_ends_while_it_is_paused_is_told_as_well) {
  for (const auto* call : {"pause", "snapshot"}) {
    with.what->orders[call] = conduct::die;
    const auto made = make("made");
    with.pass(milliseconds(2000));
    ASSERT_TRUE(made->has_value()) << call;
    EXPECT_THAT((*made)->error().message(), HasSubstr("it wrote nothing to its console")) << call;
    with.what->orders.clear();
  }
  const auto made = make("made");
  with.pass(milliseconds(1100));
  EXPECT_TRUE((*made)->ok());
}

TEST_F(snapshots, the_refusal_of_a_vmm_and_its_log_are_told_in_short) {
  with.what->orders["load"] = conduct::fail;
  with.what->refusal = std::string(5000, 'r');
  const auto made = with.create();
  with.pass(milliseconds(10));
  EXPECT_EQ((*made)->error().code, errc::conflict);
  EXPECT_LT((*made)->error().message().size(), 500U);
}

TEST(log_tail, is_the_last_lines_on_one_and_never_more_than_was_asked_for) {
  const temp_dir folder;
  const auto log = folder.path() / "log";
  const auto tail = [&](const std::string& text, unsigned lines, std::size_t bytes) {
    std::ofstream(log) << text;
    return log_tail(log, lines, bytes);
  };
  EXPECT_EQ(tail("a\nb\nc\nd\n", 2, 100), "c|d");
  EXPECT_EQ(tail("a\r\nb\r\n\r\n", 2, 100), "a|b");
  EXPECT_EQ(tail("one", 3, 100), "one");
  EXPECT_EQ(tail("a\nb", 3, 100), "a|b");
  EXPECT_EQ(tail("0123456789\n", 3, 5), "6789");
  EXPECT_EQ(tail("", 3, 100), "");
  EXPECT_EQ(tail("\n\n", 3, 100), "");
  EXPECT_EQ(tail("\x1b[1mred\n", 3, 100), "|[1mred");
  EXPECT_EQ(log_tail(folder.path() / "none"), "");
}

TEST_F(snapshots, deleting_a_failed_one_forgets_it_and_cascades_take_failed_children_along) {
  const auto parent = with.parent();
  with.what->orders["copy"] = conduct::fail;
  with.branch(parent, "b1", branch_mode::live, false);
  with.branch(parent, "b2", branch_mode::live, false);
  with.pass(milliseconds(10));
  EXPECT_EQ(with.info("b1")->status, snapshot_status::failed);
  EXPECT_TRUE((*remove("b1"))->ok());
  EXPECT_FALSE(with.listed("b1"));
  EXPECT_EQ((*remove("b1"))->error().code, errc::not_found);
  with.send<void, ask::delete_sandbox>(parent);
  EXPECT_TRUE((*remove("base", true))->ok());
  EXPECT_FALSE(with.listed("b2") || with.listed("base"));
}

}  // namespace
}  // namespace coppice
