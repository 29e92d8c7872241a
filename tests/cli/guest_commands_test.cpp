#include "cli/guest_commands.hpp"

#include <gmock/gmock.h>

#include "options/exit_codes.hpp"
#include "tests/api/fake_agent.hpp"
#include "tests/cli/coppice_command.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class guest_command : public coppice_command {
 protected:
  void SetUp() override {
    coppice_command::SetUp();
    plane_.sandboxes["sb-1"].id = "sb-1";
  }
  // Runs a command while the guest's agent is one that answers so.
  int run_with_agent(const std::string& says, const std::vector<const char*>& words) {
    fake_agent guest(says);
    plane_.guest_port = guest.port();
    const int code = run(words);
    heard_ = guest.heard();
    return code;
  }
  int exec(const std::string& says) { return run_with_agent(says, {"exec", "sb-1", "--", "prog", "-x"}); }

  json heard_;
};

TEST_F(guest_command, exec_passes_on_output_and_exit_code) {
  EXPECT_EQ(exec(R"({"stdout":"a\n","stderr":"b\n","exit_code":3})"), 3);
  EXPECT_EQ(heard_["args"], json({"prog", "-x"}));
  EXPECT_EQ(out_, "a\n");
  EXPECT_EQ(err_, "b\n");
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":0})"), 0);
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":255})"), 255);
}

TEST_F(guest_command, exec_never_makes_a_success_of_a_failure) {
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":-9})"), 137) << "128 and the signal";
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":256})"), 255);
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":-256})"), 255);
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":-127})"), 255);
  EXPECT_EQ(exec(R"({"stdout":"","stderr":"","exit_code":4294967296})"), 255);
}

TEST_F(guest_command, exec_of_what_cannot_be_run_is_as_docker_has_it) {
  EXPECT_EQ(exec(R"({"error":"FileNotFoundError: [Errno 2] No such file or directory: 'prog'","exit_code":1})"), 127);
  EXPECT_THAT(err_, AllOf(HasSubstr("sb-1"), HasSubstr("No such file")));
  EXPECT_EQ(exec(R"({"error":"PermissionError: [Errno 13] Permission denied: 'prog'","exit_code":1})"), 126);
  EXPECT_EQ(exec(R"({"error":"OSError: [Errno 8] Exec format error: 'prog'","exit_code":1})"), 126);
  EXPECT_EQ(exec(R"({"error":"TimeoutExpired: timed out after 30 seconds","exit_code":1})"), 125);
  EXPECT_EQ(exec("no JSON"), 125);
  EXPECT_EQ(run({"exec", "sb-9", "--", "prog"}), 125) << "no such sandbox";
  EXPECT_EQ(run({"exec", "sb-1"}), 125) << "wrong usage";
  EXPECT_THAT(err_, HasSubstr("See 'coppice exec --help'."));
  plane_.guest_port.reset();
  EXPECT_EQ(run({"exec", "sb-1", "--", "prog"}), 125) << "no agent";
  server_ = "127.0.0.1:1";
  EXPECT_EQ(run({"exec", "sb-1", "--", "prog"}), 125) << "no daemon";
  server_ = "nowhere";
  EXPECT_EQ(run({"exec", "sb-1", "--", "prog"}), 125) << "no such address";
}

TEST_F(guest_command, exec_as_json_has_the_same_exit_code) {
  EXPECT_EQ(run_with_agent(R"({"stdout":"a","stderr":"b","exit_code":-15})", {"--json", "exec", "sb-1", "prog"}), 143);
  EXPECT_EQ(json::parse(out_), json({{"stdout", "a"}, {"stderr", "b"}, {"exit_code", -15}}));
  EXPECT_EQ(err_, "");
  EXPECT_EQ(run_with_agent(R"({"error":"FileNotFoundError"})", {"--json", "exec", "sb-1", "prog"}), 127);
  EXPECT_EQ(out_, "");
  EXPECT_EQ(json::parse(err_)["error"]["exit_code"], 127);
}

TEST_F(guest_command, eval_prints_the_value_or_fails_with_the_reason) {
  EXPECT_EQ(run_with_agent(R"({"result":"42","exit_code":0})", {"eval", "sb-1", "6 * 7"}), exit_ok);
  EXPECT_EQ(heard_["code"], "6 * 7");
  EXPECT_EQ(out_, "42\n");
  EXPECT_EQ(run_with_agent(R"({"error":"SyntaxError: ?","exit_code":1})", {"eval", "sb-1", "?"}), exit_failed);
  EXPECT_EQ(out_, "");
  EXPECT_EQ(err_, "coppice: the code failed: SyntaxError: ?\n");
  EXPECT_EQ(run_with_agent(R"({"result":"42"})", {"eval", "sb-1", "6 * 7", "--json"}), exit_ok);
  EXPECT_EQ(json::parse(out_)["result"], "42");
  EXPECT_EQ(run({"eval", "sb-9", "1"}), exit_not_found);
}

TEST_F(guest_command, ping_prints_what_the_agent_says) {
  EXPECT_EQ(run_with_agent(R"({"pong":true,"pid":7})", {"ping", "sb-1"}), exit_ok);
  EXPECT_EQ(heard_["action"], "ping");
  EXPECT_THAT(out_, AllOf(HasSubstr("pong  yes"), HasSubstr("pid   7")));
  EXPECT_EQ(run_with_agent(R"({"pong":true})", {"ping", "sb-1", "--json"}), exit_ok);
  EXPECT_EQ(json::parse(out_), json({{"pong", true}}));
  EXPECT_EQ(run_with_agent("pong", {"ping", "sb-1"}), exit_unavailable);
}

TEST_F(guest_command, the_journal_is_shown_and_reset_if_that_is_wanted) {
  EXPECT_EQ(run({"journal", "sb-1"}), exit_ok);
  EXPECT_THAT(out_, AllOf(HasSubstr("steps"), HasSubstr("42")));
  EXPECT_EQ(plane_.journal_reset, false);
  EXPECT_EQ(run({"journal", "sb-1", "--reset", "--json"}), exit_ok);
  EXPECT_EQ(json::parse(out_)["longest_stall_ns"], 1500);
  EXPECT_EQ(plane_.journal_reset, true);
}

}  // namespace
}  // namespace coppice
