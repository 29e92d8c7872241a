// Sandboxes with a memory limit, in real groups of a real cgroup v2.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "tests/e2e/daemon.hpp"
#include "tests/support/own_cgroup.hpp"

namespace coppice::e2e {
namespace {

using testing::HasSubstr;

TEST(memory_limit_e2e, without_a_cgroup_it_is_refused_with_what_to_do) {
  daemon daemon;
  ASSERT_TRUE(daemon.up()) << daemon.process().output();
  ASSERT_FALSE(daemon.start_parent("64M").empty());
  const auto answer = daemon.api().send("POST", "/v1/sandboxes", R"({"snapshot_tag":"base","memory_limit_mib":256})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 409U) << answer->body;
  EXPECT_THAT(answer->body, HasSubstr("--cgroup"));
}

TEST(memory_limit_e2e, a_folder_that_is_no_cgroup_ends_the_start_with_its_name) {
  const temp_dir folder;
  daemon daemon(coppice_vmm, {"--cgroup", folder.path().string()});
  EXPECT_FALSE(daemon.up());
  EXPECT_EQ(daemon.process().wait_for_exit(patience), 1);
  EXPECT_THAT(daemon.process().output(), HasSubstr(folder.path().string()));
}

// Bytes of memfds and tmpfs that count for the group.
std::uint64_t shared_memory_of(const std::filesystem::path& group) {
  std::istringstream words(read_text_file(group / "memory.stat").value());
  std::string name;
  for (std::uint64_t bytes = 0; words >> name >> bytes;) {
    if (name == "shmem") return bytes;
  }
  return 0;
}

class limited_e2e : public testing::Test {
 protected:
  void SetUp() override {
    if (!own_.has_memory()) GTEST_SKIP() << "no cgroup v2 with the memory controller here";
    daemon_.emplace(coppice_vmm, std::vector<std::string>{"--cgroup", own_.path().string()});
    ASSERT_TRUE(daemon_->up()) << daemon_->process().output();
    parent_ = daemon_->start_parent("64M");
    ASSERT_FALSE(parent_.empty());
  }
  std::vector<std::string> groups() const {
    std::vector<std::string> found;
    for (const auto& each : std::filesystem::directory_iterator(own_.path())) {
      if (each.path().filename().string().starts_with("vm-")) found.push_back(each.path().filename());
    }
    return found;
  }
  bool group_goes() const {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!groups().empty()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

  own_cgroup own_;
  std::optional<daemon> daemon_;
  std::string parent_;
};

TEST_F(limited_e2e, a_child_runs_in_its_group_can_be_branched_and_the_group_goes_with_it) {
  const auto& api = daemon_->api();
  const auto made = api.post("/v1/sandboxes", {{"snapshot_tag", "base"}, {"memory_limit_mib", 256}});
  ASSERT_TRUE(made) << made.error().message();
  const auto& child = made->at(0);
  EXPECT_EQ(child.at("memory_limit_mib"), 256);
  const auto group = own_.path() / ("vm-" + child.at("id").get<std::string>());
  EXPECT_EQ(read_text_file(group / "memory.max").value(), std::to_string(256 * mib) + "\n");
  EXPECT_THAT(read_text_file(group / "cgroup.procs").value(),
              HasSubstr(std::to_string(child.at("pid").get<int>()) + "\n"));
  EXPECT_GT(shared_memory_of(group), 4 * mib) << "its RAM counts";
  EXPECT_TRUE(daemon_->advances(child.at("id")));
  const auto branch = daemon_->branch(child.at("id"), {{"tag", "b"}});
  ASSERT_TRUE(branch) << branch.error().message();
  const auto verified = api.post("/v1/snapshots/b/verify", nlohmann::json::object());
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_EQ(verified->at("ok"), true);
  EXPECT_TRUE(api.remove("/v1/sandboxes/" + child.at("id").get<std::string>()));
  EXPECT_TRUE(group_goes());
}

TEST_F(limited_e2e, a_vm_over_its_limit_is_killed_with_the_reason_and_others_run_on) {
  const auto made = daemon_->api().post("/v1/sandboxes", {{"snapshot_tag", "base"}, {"memory_limit_mib", 256}});
  ASSERT_TRUE(made) << made.error().message();
  const std::string id = made->at(0).at("id");
  std::ofstream(own_.path() / ("vm-" + id) / "memory.max") << mib << std::flush;  // less than it has by now
  EXPECT_TRUE(daemon_->process().wait_for_output("over its memory limit")) << daemon_->process().output();
  EXPECT_TRUE(group_goes());
  EXPECT_TRUE(daemon_->advances(parent_));
}

TEST_F(limited_e2e, a_limit_below_what_the_snapshot_holds_is_refused_and_nothing_is_left) {
  const auto answer = daemon_->api().send("POST", "/v1/sandboxes", R"({"snapshot_tag":"base","memory_limit_mib":2})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 409U) << answer->body;
  EXPECT_THAT(answer->body, HasSubstr("limit is too low"));
  EXPECT_TRUE(group_goes());
  EXPECT_TRUE(daemon_->advances(parent_)) << "others run on";
}

TEST_F(limited_e2e, each_limit_that_is_too_low_for_image_or_vmm_is_refused_as_such) {
  constexpr int enough = 256;
  int limit = 2;
  for (;; ++limit) {
    ASSERT_LT(limit, enough);
    const auto answer = daemon_->api().send(
        "POST", "/v1/sandboxes", R"({"snapshot_tag":"base","memory_limit_mib":)" + std::to_string(limit) + "}");
    ASSERT_TRUE(answer) << answer.error().message();
    if (answer->status == 201U) break;
    ASSERT_EQ(answer->status, 409U) << limit << ": " << answer->body;
    ASSERT_THAT(answer->body, HasSubstr("limit is too low")) << limit;
  }
  EXPECT_GT(limit, 2);
}

}  // namespace
}  // namespace coppice::e2e
