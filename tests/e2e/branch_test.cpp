// The main job through the real programs: coppiced, a real VMM, a real guest, real HTTP, a real disk.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "tests/e2e/daemon.hpp"
#include "tests/e2e/stand_in_jailer.hpp"
#include "vmm/network_namespace.hpp"

namespace coppice::e2e {
namespace {

// Which VMM: coppice-vmm, or the real Firecracker that an environment variable names; and whether it is jailed.
struct vmm_choice {
  std::string name;
  const char* variable;  // nullptr: coppice-vmm
  bool live;
  bool jailed = false;  // with a Firecracker by the jailer that COPPICE_JAILER names
};

class branch_e2e : public ::testing::TestWithParam<vmm_choice> {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
    std::filesystem::path vmm = coppice_vmm;
    std::string jailer = stand_in_jailer;
    if (GetParam().variable != nullptr) {
      const char* const path = std::getenv(GetParam().variable);
      if (path == nullptr) GTEST_SKIP() << "set " << GetParam().variable << " to the path of a Firecracker to run this";
      vmm = path;
      const char* const its_jailer = std::getenv("COPPICE_JAILER");
      if (GetParam().jailed && its_jailer == nullptr) GTEST_SKIP() << "set COPPICE_JAILER to the path of its jailer";
      if (GetParam().jailed) jailer = its_jailer;
    }
    if (GetParam().jailed && ::geteuid() != 0) GTEST_SKIP() << "jails need root";
    daemon_ = std::make_unique<daemon>(
        vmm, GetParam().jailed ? std::vector<std::string>{"--jailer", jailer} : std::vector<std::string>{});
    ASSERT_TRUE(daemon_->up()) << daemon_->process().output();
    parent_ = daemon_->start_parent();
    ASSERT_FALSE(parent_.empty()) << daemon_->process().output();
  }

  void expect_perfect(const std::string& tag) {
    auto report = daemon_->api().post("/v1/snapshots/" + tag + "/verify", nlohmann::json::object());
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_TRUE(report->at("ok").get<bool>()) << *report;
    EXPECT_TRUE(report->at("is_journal").get<bool>()) << *report;
    EXPECT_GT(report->at("journal_steps").get<std::uint64_t>(), 0U) << *report;
    for (const char* kind : {"future_pages", "lost_pages", "torn_pages", "gaps", "bad_chunks"}) {
      EXPECT_EQ(report->at(kind).get<std::uint64_t>(), 0U) << kind << ": " << *report;
    }
  }

  nlohmann::json branch(const std::string& sandbox, const std::string& tag, const std::string& mode) {
    auto made = daemon_->branch(sandbox, {{"tag", tag}, {"mode", mode}});
    EXPECT_TRUE(made) << made.error().message();
    return made ? *made : nlohmann::json();
  }

  // A child of `tag` runs, finds no gap, and what it has written since is consistent: its own branch is perfect.
  void expect_good_child(const std::string& tag, const std::string& mode) {
    auto made = daemon_->api().post("/v1/sandboxes", {{"snapshot_tag", tag}, {"n", 1}});
    ASSERT_TRUE(made) << made.error().message();
    const std::string child = made->at(0).at("id");
    if (GetParam().live) {
      EXPECT_TRUE(daemon_->advances(child));
      EXPECT_EQ(daemon_->gaps(child), 0U);
    }
    branch(child, tag + "-child", mode);
    expect_perfect(tag + "-child");
    EXPECT_TRUE(daemon_->api().remove("/v1/sandboxes/" + child));
  }

  std::unique_ptr<daemon> daemon_;
  std::string parent_;
};

TEST_P(branch_e2e, every_live_branch_and_child_is_of_one_instant) {
  if (!GetParam().live) GTEST_SKIP() << "this VMM cannot branch live";
  for (int i = 0; i < 5; ++i) {
    const std::string tag = "live" + std::to_string(i);
    const auto info = branch(parent_, tag, "live");
    EXPECT_EQ(info.at("status"), "ready");
    EXPECT_EQ(info.at("branched_from"), parent_);
    expect_perfect(tag);
    expect_good_child(tag, "live");
    EXPECT_TRUE(daemon_->advances(parent_));
  }
  EXPECT_EQ(daemon_->gaps(parent_), 0U);
}

TEST_P(branch_e2e, full_and_diff_branches_and_children_are_of_one_instant) {
  for (const std::string mode : {"full", "diff", "diff"}) {
    static int number = 0;
    const std::string tag = mode + std::to_string(number++);
    branch(parent_, tag, mode);
    expect_perfect(tag);
    expect_good_child(tag, "full");
  }
}

TEST_P(branch_e2e, a_live_branch_on_a_vmm_that_cannot_names_what_is_missing) {
  if (GetParam().live) GTEST_SKIP() << "this VMM can";
  auto answer = daemon_->api().send("POST", "/v1/sandboxes/" + parent_ + "/branch", R"({"mode":"live"})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 409U);
  EXPECT_NE(answer->body.find("VmstateOnly"), std::string::npos) << answer->body;
}

TEST_P(branch_e2e, children_of_a_snapshot_with_a_network_live_in_a_namespace_each) {
  if (const auto works = network_namespace::create(); !works) GTEST_SKIP() << works.error().message();
  const auto& api = daemon_->api();
  auto base =
      api.post("/v1/snapshots", {{"tag", "net"}, {"kernel", journal_kernel}, {"memory_mib", 64}, {"network", true}});
  if (GetParam().variable == nullptr) {
    ASSERT_FALSE(base);
    EXPECT_NE(base.error().message().find("use Firecracker"), std::string::npos) << base.error().message();
    return;
  }
  ASSERT_TRUE(base) << base.error().message();
  EXPECT_EQ(base->at("network"), true);
  auto without = api.post("/v1/sandboxes", {{"snapshot_tag", "net"}});
  ASSERT_FALSE(without);
  EXPECT_NE(without.error().message().find("per_child_netns"), std::string::npos) << without.error().message();
  auto made = api.post("/v1/sandboxes", {{"snapshot_tag", "net"}, {"n", 2}, {"per_child_netns", true}});
  ASSERT_TRUE(made) << made.error().message();
  std::set<std::filesystem::path> namespaces{std::filesystem::read_symlink("/proc/self/ns/net")};
  for (const auto& child : *made) {
    namespaces.insert(std::filesystem::read_symlink(child.at("netns").get<std::string>()));
    EXPECT_EQ(child.at("guest_addr"), "10.42.0.2:8888");
    if (GetParam().live) {
      EXPECT_TRUE(daemon_->advances(child.at("id")));
    }
  }
  EXPECT_EQ(namespaces.size(), 3U);
  branch(made->at(0).at("id"), "net-branch", GetParam().live ? "live" : "full");
  expect_perfect("net-branch");
  EXPECT_FALSE(api.post("/v1/sandboxes", {{"snapshot_tag", "net-branch"}})) << "it inherits the network";
  EXPECT_TRUE(api.post("/v1/sandboxes", {{"snapshot_tag", "net-branch"}, {"per_child_netns", true}}));
}

INSTANTIATE_TEST_SUITE_P(
    vmm, branch_e2e,
    ::testing::Values(vmm_choice{"coppice_vmm", nullptr, true}, vmm_choice{"coppice_vmm_jailed", nullptr, true, true},
                      vmm_choice{"firecracker", "COPPICE_FIRECRACKER", true},
                      vmm_choice{"firecracker_jailed", "COPPICE_FIRECRACKER", true, true},
                      vmm_choice{"firecracker_stock", "COPPICE_FIRECRACKER_STOCK", false},
                      vmm_choice{"firecracker_stock_jailed", "COPPICE_FIRECRACKER_STOCK", false, true}),
    [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace coppice::e2e
