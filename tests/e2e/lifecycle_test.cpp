// The daemon's own life: stopping and dying in the middle of work, and coming back.
#include <gtest/gtest.h>

#include "base/units.hpp"
#include "tests/e2e/daemon.hpp"
#include "tests/support/service_manager.hpp"

namespace coppice::e2e {
namespace {

class lifecycle_e2e : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
  }

  // A daemon with a parent and `count` live branches under way.
  void start_branches(daemon& daemon, int count) {
    ASSERT_TRUE(daemon.up()) << daemon.process().output();
    const std::string parent = daemon.start_parent("64M");
    ASSERT_FALSE(parent.empty());
    for (int i = 0; i < count; ++i) {
      const nlohmann::json body{{"tag", "b" + std::to_string(i)}, {"mode", "live"}, {"wait", false}};
      auto answer = daemon.api().send("POST", "/v1/sandboxes/" + parent + "/branch", body.dump());
      ASSERT_TRUE(answer);
      ASSERT_EQ(answer->status, 202U) << answer->body;
    }
  }

  static std::vector<std::string> staging(const std::filesystem::path& root) {
    std::vector<std::string> found;
    for (const auto& each : std::filesystem::directory_iterator(root / "snapshots")) {
      const std::string name = each.path().filename().string();
      if (name.starts_with(".")) found.push_back(name);
    }
    return found;
  }
};

TEST_F(lifecycle_e2e, sigterm_amid_branches_ends_vms_and_removes_staging_within_5_s) {
  daemon daemon(coppice_vmm, {"--branch-copy-rate", "1M"});  // so slow that they are under way for certain
  start_branches(daemon, 3);
  daemon.process().signal(SIGTERM);
  EXPECT_EQ(daemon.process().wait_for_exit(std::chrono::seconds(5)), 0) << daemon.process().output();
  EXPECT_TRUE(processes_naming(daemon.root().string()).empty());
  EXPECT_TRUE(staging(daemon.root()).empty());
}

TEST_F(lifecycle_e2e, the_service_manager_hears_ready_heartbeats_and_stopping) {
  fake_service_manager manager;
  ::setenv("NOTIFY_SOCKET", manager.address().c_str(), 1);
  ::setenv("WATCHDOG_USEC", "20000", 1);
  daemon daemon;
  ::unsetenv("NOTIFY_SOCKET");
  ::unsetenv("WATCHDOG_USEC");
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  EXPECT_EQ(manager.next(), "READY=1\nSTATUS=listening on " + daemon.api().url());
  for (int beat = 0; beat < 3; ++beat) EXPECT_EQ(manager.next(), "WATCHDOG=1");
  daemon.process().signal(SIGTERM);
  std::optional<std::string> last;
  while (last != "STOPPING=1") ASSERT_TRUE(last = manager.next());
  EXPECT_EQ(daemon.process().wait_for_exit(patience), 0) << daemon.process().output();
}

TEST_F(lifecycle_e2e, no_vm_outlives_a_daemon_that_was_killed_and_the_next_one_cleans_up) {
  temp_dir root;
  {
    daemon first(coppice_vmm, {"--branch-copy-rate", "1M"}, root.path() / "r");
    start_branches(first, 3);
    first.process().signal(SIGKILL);
    EXPECT_EQ(first.process().wait_for_exit(std::chrono::seconds(5)), -SIGKILL);
  }
  EXPECT_TRUE(no_process_names((root.path() / "r").string()));
  daemon second(coppice_vmm, {}, root.path() / "r");
  ASSERT_TRUE(second.up()) << second.process().output();
  EXPECT_TRUE(staging(second.root()).empty());
  auto snapshots = second.api().get("/v1/snapshots");
  ASSERT_TRUE(snapshots);
  EXPECT_EQ(snapshots->size(), 1U) << "the base; no branch was ready";
  for (const auto& each : *snapshots) {
    EXPECT_EQ(each.at("status"), "ready");
    auto report =
        second.api().post("/v1/snapshots/" + each.at("tag").get<std::string>() + "/verify", nlohmann::json::object());
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_TRUE(report->at("ok").get<bool>()) << *report;
  }
}

TEST_F(lifecycle_e2e, branches_leave_no_memory_and_no_fd_behind) {
  daemon daemon;
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  const std::string parent = daemon.start_parent("64M");
  const auto round = [&](int number) {
    const std::string tag = "b" + std::to_string(number);
    ASSERT_TRUE(daemon.branch(parent, {{"tag", tag}, {"mode", "live"}}));
    ASSERT_TRUE(daemon.api().remove("/v1/snapshots/" + tag));
  };
  for (int i = 0; i < 10; ++i) round(i);
  const auto fds = daemon.open_fds();
  const auto bytes = daemon.anonymous_bytes();
  for (int i = 10; i < 40; ++i) round(i);
  const auto deadline = std::chrono::steady_clock::now() + patience;  // the last ones close after the answer
  while (daemon.open_fds() > fds && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_LE(daemon.open_fds(), fds);
  EXPECT_LE(daemon.anonymous_bytes(), bytes + 16 * mib);
}

}  // namespace
}  // namespace coppice::e2e
