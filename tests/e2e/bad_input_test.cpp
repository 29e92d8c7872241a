// Bad input and bad surroundings: a clear answer, and nothing is lost.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/e2e/daemon.hpp"

namespace coppice::e2e {
namespace {

struct refused_request {
  std::string name, method, target, body;
  unsigned status;
  std::string message;  // a part of it
};

class bad_request_e2e : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) return;
    shared_ = new daemon();
    parent_ = new std::string(shared_->up() ? shared_->start_parent("64M") : "");
  }
  static void TearDownTestSuite() {
    delete std::exchange(shared_, nullptr);
    delete std::exchange(parent_, nullptr);
  }
  void SetUp() override {
    if (shared_ == nullptr) GTEST_SKIP() << "no /dev/kvm";
    ASSERT_TRUE(shared_->up()) << shared_->process().output();
    ASSERT_FALSE(parent_->empty());
  }

  void expect_refused(const refused_request& each) {
    SCOPED_TRACE(each.name);
    auto answer = shared_->api().send(each.method, each.target,
                                      each.body.empty() ? std::nullopt : std::optional<std::string>(each.body));
    ASSERT_TRUE(answer) << answer.error().message();
    EXPECT_EQ(answer->status, each.status) << answer->body;
    EXPECT_NE(answer->body.find(each.message), std::string::npos) << answer->body;
    EXPECT_NE(answer->body.find("\"error\""), std::string::npos) << answer->body;
  }

  static daemon* shared_;
  static std::string* parent_;
};
daemon* bad_request_e2e::shared_ = nullptr;
std::string* bad_request_e2e::parent_ = nullptr;

TEST_F(bad_request_e2e, each_has_its_status_and_message) {
  const std::string sandbox = "/v1/sandboxes/" + *parent_ + "/branch";
  temp_dir files;
  const auto text = files.path() / "text";
  std::ofstream(text) << "this is no kernel";
  const auto create = [&](const std::string& tag, const std::string& kernel) {
    return nlohmann::json{{"tag", tag}, {"kernel", kernel}, {"memory_mib", 64}}.dump();
  };
  const std::string long_tag(65, 'a');
  for (const refused_request& each : std::vector<refused_request>{
           {"unknown tag", "GET", "/v1/snapshots/nope/info", "", 404, "nope"},
           {"unknown tag to start", "POST", "/v1/sandboxes", R"({"snapshot_tag":"nope"})", 404, "nope"},
           {"unknown tag to delete", "DELETE", "/v1/snapshots/nope", "", 404, "nope"},
           {"unknown sandbox", "GET", "/v1/sandboxes/sb-nope", "", 404, "sb-nope"},
           {"unknown sandbox to branch", "POST", "/v1/sandboxes/sb-nope/branch", "{}", 404, "sb-nope"},
           {"a tag taken", "POST", sandbox, R"({"tag":"base"})", 409, "base"},
           {"a tag that leaves its folder", "POST", sandbox, R"({"tag":"../x"})", 400, "tag"},
           {"an empty tag", "POST", sandbox, R"({"tag":""})", 400, "tag"},
           {"a tag of 65 characters", "POST", sandbox, R"({"tag":")" + long_tag + "\"}", 400, "64"},
           {"a tag with a slash", "POST", sandbox, R"({"tag":"a/b"})", 400, "tag"},
           {"no children", "POST", "/v1/sandboxes", R"({"snapshot_tag":"base","n":0})", 400, "n"},
           {"too many children", "POST", "/v1/sandboxes", R"({"snapshot_tag":"base","n":1000000})", 400, "n"},
           {"an unknown mode", "POST", sandbox, R"({"mode":"fast"})", 400, "live, full or diff"},
           {"a missing kernel", "POST", "/v1/snapshots", create("k1", "/nope/kernel"), 400, "/nope/kernel"},
           {"a file that is no ELF", "POST", "/v1/snapshots", create("k2", text.string()), 400, "ELF"},
           {"a body that is no JSON", "POST", sandbox, "{", 400, "JSON"},
       }) {
    expect_refused(each);
  }
  EXPECT_TRUE(shared_->advances(*parent_)) << "and the parent runs on";
  EXPECT_EQ(shared_->api().get("/v1/snapshots")->size(), 1U) << "and nothing was made";
}

TEST_F(bad_request_e2e, a_snapshot_in_use_cannot_be_deleted) {
  expect_refused({"in use", "DELETE", "/v1/snapshots/base", "", 409, *parent_});
}

TEST_F(bad_request_e2e, a_writable_drive_is_refused_with_the_reason) {
  temp_dir files;
  std::ofstream(files.path() / "disk") << std::string(4096, 'x');
  expect_refused({"writable drive", "POST", "/v1/snapshots",
                  nlohmann::json{{"tag", "d"},
                                 {"kernel", journal_kernel.string()},
                                 {"memory_mib", 64},
                                 {"rootfs", (files.path() / "disk").string()},
                                 {"rootfs_read_only", false}}
                      .dump(),
                  409, "read-only"});
}

TEST_F(bad_request_e2e, a_branch_of_a_sandbox_that_died_is_refused) {
  auto made = shared_->api().post("/v1/sandboxes", {{"snapshot_tag", "base"}});
  ASSERT_TRUE(made) << made.error().message();
  const std::string id = made->at(0).at("id");
  ASSERT_EQ(::kill(made->at(0).at("pid").get<pid_t>(), SIGKILL), 0);
  auto answer = shared_->api().send("POST", "/v1/sandboxes/" + id + "/branch", "{}");
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->status == 404 || answer->status == 409 || answer->status == 503)
      << answer->status << answer->body;
  EXPECT_TRUE(shared_->advances(*parent_));
}

TEST_F(bad_request_e2e, a_second_daemon_on_the_same_root_is_refused) {
  const auto second = run_program(coppiced, {"--root", shared_->root().string(), "--listen", "127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.output.find(std::to_string(shared_->process().pid())), std::string::npos) << second.output;
}

TEST_F(bad_request_e2e, a_listen_address_in_use_is_refused) {
  temp_dir other;
  const std::string address = shared_->api().url().substr(7);
  const auto second = run_program(coppiced, {"--root", (other.path() / "r").string(), "--listen", address});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.output.find(address), std::string::npos) << second.output;
}

TEST(bad_start_e2e, a_root_that_cannot_be_made_is_refused) {
  const auto outcome = run_program(coppiced, {"--root", "/proc/coppice", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.output.find("/proc/coppice"), std::string::npos) << outcome.output;
}

TEST(bad_start_e2e, a_vmm_that_does_not_exist_is_refused) {
  temp_dir root;
  const auto outcome =
      run_program(coppiced, {"--root", root.path().string(), "--listen", "127.0.0.1:0", "--vmm", "/nope/vmm"});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.output.find("/nope/vmm"), std::string::npos) << outcome.output;
}

TEST(bad_start_e2e, usage_errors_have_their_own_exit_code) {
  EXPECT_EQ(run_program(coppiced, {}).exit_code, 2);
  EXPECT_EQ(run_program(coppice_cli, {"branch"}).exit_code, 2);
  EXPECT_EQ(run_program(coppice_cli, {"--server", "127.0.0.1:1", "sandbox", "ls"}).exit_code, 5);
}

}  // namespace
}  // namespace coppice::e2e
