// Surroundings that lack something, and VMs that die: a clear answer, and nothing else is hurt.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>
#include <memory>

#include "tests/e2e/daemon.hpp"

namespace coppice::e2e {
namespace {

using nlohmann::json;

class surroundings_e2e : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
  }

  // A VMM binary that is coppice-vmm with more arguments.
  std::filesystem::path vmm_with(const std::string& arguments) {
    const auto script = files_.path() / "vmm";
    std::ofstream(script) << "#!/bin/sh\nexec " << coppice_vmm.string() << ' ' << arguments << " \"$@\"\n";
    ::chmod(script.c_str(), 0755);
    return script;
  }

  static std::string status_of(const daemon& daemon, const std::string& tag) {
    auto info = daemon.api().get("/v1/snapshots/" + tag + "/info");
    return info ? info->at("status").get<std::string>() : info.error().message();
  }
  // Waits until the branch is no longer being written.
  static std::string final_status(const daemon& daemon, const std::string& tag) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    std::string status = status_of(daemon, tag);
    while (status == "writing" && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      status = status_of(daemon, tag);
    }
    return status;
  }
  static void expect_perfect(const daemon& daemon, const std::string& tag) {
    auto report = daemon.api().post("/v1/snapshots/" + tag + "/verify", json::object());
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_TRUE(report->at("ok").get<bool>()) << *report;
    EXPECT_GT(report->at("journal_pages").get<std::uint64_t>(), 0U);
  }
  static bool branch_without_waiting(const daemon& daemon, const std::string& sandbox, const std::string& tag) {
    auto answer = daemon.api().send("POST", "/v1/sandboxes/" + sandbox + "/branch",
                                    json{{"tag", tag}, {"mode", "live"}, {"wait", false}}.dump());
    return answer && answer->status == 202;
  }

  temp_dir files_;
};

TEST_F(surroundings_e2e, without_kvm_the_journal_runs_on_threads_and_is_branched_all_the_same) {
  daemon daemon(vmm_with("--no-kvm"));
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M");
  ASSERT_FALSE(parent.empty());
  ASSERT_TRUE(daemon.branch(parent, {{"tag", "b1"}, {"mode", "live"}}));
  expect_perfect(daemon, "b1");
  auto child = daemon.api().post("/v1/sandboxes", {{"snapshot_tag", "b1"}});
  ASSERT_TRUE(child) << child.error().message();
  EXPECT_TRUE(daemon.advances(child->at(0).at("id")));
  EXPECT_EQ(daemon.gaps(child->at(0).at("id")), 0U);
}

TEST_F(surroundings_e2e, without_userfaultfd_a_sandbox_is_refused_with_what_to_do_and_nothing_is_left_of_it) {
  daemon daemon(VMM_WITHOUT_USERFAULTFD);
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  auto base =
      daemon.api().post("/v1/snapshots", {{"tag", "base"}, {"kernel", journal_kernel.string()}, {"memory_mib", 64}});
  ASSERT_TRUE(base) << base.error().message();
  auto answer = daemon.api().send("POST", "/v1/sandboxes", R"({"snapshot_tag":"base"})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 409U) << answer->body;
  EXPECT_NE(answer->body.find("vm.unprivileged_userfaultfd=1"), std::string::npos) << answer->body;
  EXPECT_EQ(daemon.api().get("/v1/sandboxes")->size(), 0U);
  EXPECT_TRUE(no_process_names(daemon.root().string() + "/run")) << "the VMM must end";
  EXPECT_TRUE(daemon.api().remove("/v1/snapshots/base")) << "nothing holds on to it";
}

TEST_F(surroundings_e2e, too_little_disk_is_said_with_what_is_needed_and_what_is_free) {
  temp_dir mount_point;
  if (::mount("tmpfs", mount_point.path().c_str(), "tmpfs", 0, "size=96m") != 0) GTEST_SKIP() << "mount needs root";
  const std::unique_ptr<const char, void (*)(const char*)> mounted(
      mount_point.path().c_str(), [](const char* path) { ::umount2(path, MNT_DETACH); });
  daemon daemon(coppice_vmm, {}, mount_point.path() / "r");
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  auto answer = daemon.api().send(
      "POST", "/v1/snapshots", json{{"tag", "base"}, {"kernel", journal_kernel.string()}, {"memory_mib", 256}}.dump());
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503U);
  EXPECT_NE(answer->body.find("256.0 MiB"), std::string::npos) << answer->body;
  EXPECT_NE(answer->body.find("free"), std::string::npos) << answer->body;
}

TEST_F(surroundings_e2e, an_image_that_was_cut_short_is_found_bad_and_the_daemon_lives) {
  daemon daemon;
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M");
  ASSERT_FALSE(parent.empty());
  ASSERT_TRUE(daemon.branch(parent, {{"tag", "b1"}, {"mode", "live"}}));
  const auto image = daemon.root() / "snapshots" / "b1" / "memory.bin";
  for (const std::uintmax_t size : {std::uintmax_t{40} << 20, std::uintmax_t{5000}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(image, size);
    auto report = daemon.api().post("/v1/snapshots/b1/verify", json::object());
    ASSERT_TRUE(report) << size << ": " << report.error().message();
    EXPECT_FALSE(report->at("ok").get<bool>()) << *report;
  }
  EXPECT_TRUE(daemon.advances(parent));
}

TEST_F(surroundings_e2e, branches_of_one_parent_overlap_and_each_is_of_its_instant) {
  daemon daemon(coppice_vmm, {"--branch-copy-rate", "4M"});
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M");
  ASSERT_FALSE(parent.empty());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(branch_without_waiting(daemon, parent, "b" + std::to_string(i)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(status_of(daemon, "b" + std::to_string(i)), "writing") << "all four must be under way at once";
  }
  for (int i = 0; i < 4; ++i) {
    const std::string tag = "b" + std::to_string(i);
    EXPECT_EQ(final_status(daemon, tag), "ready");
    expect_perfect(daemon, tag);
  }
  EXPECT_EQ(daemon.gaps(parent), 0U);
}

TEST_F(surroundings_e2e, a_vm_that_is_killed_amid_its_branch_costs_that_branch_only) {
  daemon daemon(coppice_vmm, {"--branch-copy-rate", "4M"});
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M");
  auto other = daemon.api().post("/v1/sandboxes", {{"snapshot_tag", "base"}});
  ASSERT_TRUE(other) << other.error().message();
  const auto pid = daemon.api().get("/v1/sandboxes/" + parent)->at("pid").get<pid_t>();
  ASSERT_TRUE(branch_without_waiting(daemon, parent, "b1"));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_EQ(final_status(daemon, "b1"), "failed");
  for (const auto& each : std::filesystem::directory_iterator(daemon.root() / "snapshots")) {
    EXPECT_EQ(each.path().filename().string().find("b1"), std::string::npos) << each.path();
  }
  EXPECT_TRUE(daemon.advances(other->at(0).at("id")));
  ASSERT_TRUE(daemon.api().remove("/v1/snapshots/b1"));
  EXPECT_EQ(daemon.api().get("/v1/sandboxes")->size(), 1U);
}

TEST_F(surroundings_e2e, a_vmm_that_hangs_in_the_pause_fails_the_branch_and_is_resumed_when_it_answers) {
  daemon daemon(vmm_with("--fault 'PUT /snapshot/create#1:delay=600'"));
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  // The base's own snapshot is the first of another process, and only late.
  const std::string parent = daemon.start_parent("64M");
  ASSERT_FALSE(parent.empty());
  auto answer = daemon.api().send("POST", "/v1/sandboxes/" + parent + "/branch", R"({"tag":"b1","mode":"live"})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503U) << answer->body;
  EXPECT_NE(answer->body.find("step snapshot"), std::string::npos) << answer->body;
  EXPECT_TRUE(daemon.advances(parent)) << "the parent must run on";
  auto again = daemon.branch(parent, {{"tag", "b1"}, {"mode", "live"}});
  ASSERT_TRUE(again) << again.error().message();
  expect_perfect(daemon, "b1");
}

TEST_F(surroundings_e2e, the_commands_of_the_readme_work_by_hand) {
  daemon daemon;
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M", "journal.pages=2048 journal.pattern=zipf");
  const auto run = [&](const std::vector<std::string>& arguments, int code = 0) {
    const auto outcome = daemon.cli(arguments);
    EXPECT_EQ(outcome.exit_code, code) << arguments.front() << ' ' << arguments.at(1) << ": " << outcome.output;
    return outcome.output;
  };
  EXPECT_NE(run({"sandbox", "ls"}).find(parent), std::string::npos);
  EXPECT_NE(run({"branch", parent, "--tag", "b1"}).find("ready"), std::string::npos);
  EXPECT_NE(run({"branch", parent, "--tag", "b2", "--mode", "full"}).find("full"), std::string::npos);
  EXPECT_NE(run({"branch", parent, "--tag", "b3", "--mode", "diff"}).find("diff"), std::string::npos);
  for (const std::string tag : {"b1", "b2", "b3"}) EXPECT_NE(run({"verify", tag}).find("ok"), std::string::npos);
  EXPECT_TRUE(json::parse(run({"--json", "snapshot", "info", "b1"})).at("bootable").get<bool>());
  const auto children = json::parse(run({"--json", "sandbox", "create", "b1", "-n", "4"}));
  EXPECT_EQ(children.size(), 4U);
  run({"snapshot", "rm", "b1"}, 4);  // in use
  for (const auto& child : children) run({"sandbox", "rm", child.at("id")});
  run({"snapshot", "rm", "b1"});
  run({"snapshot", "info", "b1"}, 3);
}

}  // namespace
}  // namespace coppice::e2e
