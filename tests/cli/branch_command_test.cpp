#include "cli/branch_command.hpp"

#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>

#include "base/file.hpp"
#include "base/units.hpp"
#include "options/exit_codes.hpp"
#include "tests/cli/coppice_command.hpp"
#include "tests/support/child_program.hpp"
#include "tests/support/one_answer.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(coppice_command, a_live_branch_is_polled_until_it_is_ready) {
  plane_.branch_status = snapshot_status::writing;
  snapshot_info step;
  step.tag = "b1";
  step.status = snapshot_status::writing;
  plane_.info_script.push_back(step);
  step.status = snapshot_status::ready;
  plane_.info_script.push_back(step);
  EXPECT_EQ(run({"branch", "sb-1", "--tag", "b1"}), exit_ok) << err_;
  EXPECT_THAT(out_, AllOf(HasSubstr("b1"), HasSubstr("ready")));
  EXPECT_TRUE(plane_.info_script.empty());
  EXPECT_FALSE(plane_.branched->wait);
}

TEST_F(coppice_command, a_trace_has_the_steps_the_guest_and_the_progress) {
  plane_.branch_status = snapshot_status::writing;
  snapshot_info step;
  step.tag = "b1";
  step.branched_from = "sb-1";
  step.copied_pages = 1;
  using std::chrono::microseconds;
  step.timeline = {{"reserve", microseconds(0), microseconds(40)},
                   {"prearm", microseconds(40), microseconds(500)},
                   {"pause", microseconds(550), microseconds(300)},
                   {"resume", microseconds(900), microseconds(200)},
                   {"copy", microseconds(1100), microseconds(9000)}};
  plane_.info_script.push_back(step);
  const temp_dir dir;
  const auto file = (dir.path() / "trace.json").string();
  EXPECT_EQ(run({"branch", "sb-1", "--tag", "b1", "--trace", file.c_str()}), exit_ok) << err_;
  const auto events = nlohmann::json::parse(read_text_file(file).value()).at("traceEvents");
  const auto slice = [&](const std::string& name) {
    for (const auto& each : events) {
      if (each.at("ph") == "X" && each.at("name") == name)
        return std::pair(each.at("ts").get<int>(), each.at("dur").get<int>());
    }
    return std::pair(-1, -1);
  };
  EXPECT_EQ(slice("prearm"), std::pair(40, 500));
  EXPECT_EQ(slice("copy"), std::pair(1100, 9000));
  EXPECT_EQ(slice("stands still"), std::pair(550, 550));
  EXPECT_EQ(slice("write-protected"), std::pair(40, 10060));
  EXPECT_THAT(events.dump(), AllOf(HasSubstr("branch b1 of sb-1"), HasSubstr(R"({"bytes":4096})")));
}

TEST_F(coppice_command, a_trace_that_cannot_be_written_is_an_error_that_names_it) {
  EXPECT_EQ(run({"branch", "sb-1", "--mode", "full", "--trace", "/none/trace.json"}), exit_conflict);
  EXPECT_THAT(err_, HasSubstr("no timeline"));
  EXPECT_EQ(run({"branch", "sb-1", "--no-wait", "--trace", "/none/trace.json"}), exit_usage);
}

TEST_F(coppice_command, on_a_terminal_a_branch_shows_how_much_is_copied) {
  plane_.branch_status = snapshot_status::writing;
  snapshot_info step;
  step.tag = "b1";
  step.status = snapshot_status::writing;
  step.copied_pages = mib / page_size;
  step.total_pages = 64 * mib / page_size;
  plane_.info_script.push_back(step);
  step.status = snapshot_status::ready;
  plane_.info_script.push_back(step);
  std::ostringstream out;
  std::ostringstream err;
  const command_context context{*api_client::create(server_), false, true, out, err};
  EXPECT_EQ(branch_sandbox(context, {.id = "sb-1", .tag = "b1", .mode = {}, .trace_file = {}}), exit_ok) << err.str();
  EXPECT_THAT(err.str(), HasSubstr("copying b1: 1.0 MiB of 64.0 MiB"));
  EXPECT_THAT(err.str(), ::testing::EndsWith(" \r")) << "and the line is wiped at the end";
  EXPECT_THAT(out.str(), HasSubstr("ready"));
}

TEST_F(coppice_command, a_branch_that_fails_while_it_is_polled_is_1_with_the_reason) {
  plane_.branch_status = snapshot_status::writing;
  snapshot_info failed;
  failed.tag = "b1";
  failed.status = snapshot_status::failed;
  failed.failure = "the disk is full";
  plane_.info_script.push_back(failed);
  EXPECT_EQ(run({"branch", "sb-1", "--tag", "b1"}), exit_failed);
  EXPECT_THAT(err_, HasSubstr("the disk is full"));
}

TEST_F(coppice_command, a_branch_that_fails_has_the_exit_code_of_its_failure) {
  for (const auto& [kind, code] : std::vector<std::pair<std::string, int>>{{"no_space", exit_unavailable},
                                                                           {"conflict", exit_conflict},
                                                                           {"corrupt", exit_bad_data},
                                                                           {"io", exit_failed}}) {
    const std::string body = R"({"tag":"b1","status":"failed","error":"it went wrong","code":")" + kind + R"("})";
    one_answer daemon("HTTP/1.1 202 Accepted\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body,
                      false);
    server_ = daemon.url();
    EXPECT_EQ(run({"branch", "sb-1"}), code) << kind;
    EXPECT_EQ(err_, "coppice: branch b1 failed: it went wrong\n");
  }
}

TEST_F(coppice_command, a_failed_branch_has_a_trace_too_once_its_guest_ran_on) {
  plane_.branch_status = snapshot_status::writing;
  snapshot_info failed;
  failed.tag = "b1";
  failed.branched_from = "sb-1";
  failed.status = snapshot_status::failed;
  failed.failure = "the disk is full";
  failed.timeline = {{"copy", std::chrono::microseconds(5), std::chrono::microseconds(10)}};
  plane_.info_script.push_back(failed);
  const temp_dir dir;
  const auto file = (dir.path() / "trace.json").string();
  EXPECT_EQ(run({"branch", "sb-1", "--tag", "b1", "--trace", file.c_str()}), exit_failed);
  EXPECT_THAT(err_, HasSubstr("the disk is full"));
  EXPECT_THAT(read_text_file(file).value(), HasSubstr("copy"));
  plane_.failure = error{errc::deadline_exceeded, 0, "step pause missed its deadline"};
  EXPECT_EQ(run({"branch", "sb-1", "--tag", "b2", "--trace", file.c_str()}), exit_unavailable);
  EXPECT_THAT(err_, HasSubstr("no trace is written"));
}

TEST_F(coppice_command, a_branch_that_need_not_be_waited_for_is_shown_as_writing) {
  plane_.branch_status = snapshot_status::writing;
  EXPECT_EQ(run({"branch", "sb-1", "--no-wait"}), exit_ok);
  EXPECT_THAT(out_, HasSubstr("writing"));
}

TEST_F(coppice_command, without_a_mode_the_daemon_chooses_and_every_mode_shows_its_progress) {
  for (const auto& [words, mode] : std::vector<std::pair<std::vector<const char*>, branch_mode>>{
           {{"branch", "sb-1"}, branch_mode::full},  // what this VMM can
           {{"branch", "sb-1", "--mode", "live"}, branch_mode::live},
           {{"branch", "sb-1", "--mode", "full"}, branch_mode::full},
           {{"branch", "sb-1", "--mode", "diff"}, branch_mode::diff}}) {
    plane_.branch_status = snapshot_status::writing;
    snapshot_info step;
    step.tag = "branch-sb-1-1";
    plane_.info_script.assign(1, step);
    EXPECT_EQ(run(words), exit_ok) << err_;
    EXPECT_EQ(plane_.branched->mode, mode);
    EXPECT_FALSE(plane_.branched->wait);
    EXPECT_TRUE(plane_.info_script.empty()) << "it was polled";
    EXPECT_THAT(out_, HasSubstr("ready"));
  }
}

TEST_F(coppice_command, a_branch_prints_its_tag_only_if_that_is_wanted) {
  EXPECT_EQ(run({"branch", "sb-1", "-q"}), exit_ok);
  EXPECT_EQ(out_, "branch-sb-1-1\n");
}

// The real program, so that it gets real signals.
class interrupted_branch : public coppice_command {
 protected:
  void SetUp() override {
    coppice_command::SetUp();
    plane_.branch_status = snapshot_status::writing;
    plane_.on_call = [this] {
      const std::lock_guard lock(mutex_);
      ++calls_;
      if (calls_ == hold_from_) plane_.hold = true;
      called_.notify_all();
    };
  }
  void TearDown() override {
    plane_.release();
    api_.reset();
  }
  // A branch that goes on until it is given up.
  void is_in_the_making(const std::string& tag) {
    plane_.snapshots[tag].tag = tag;
    plane_.snapshots[tag].status = snapshot_status::writing;
    plane_.snapshots[tag].branched_from = "sb-1";
  }
  void start(std::vector<std::string> words) {
    words.insert(words.begin(), {"--server", server_, "branch", "sb-1"});
    program_.emplace(COPPICE_CLI, words);
  }
  // Waits until the program has made so many calls.
  bool has_called(int count) {
    std::unique_lock lock(mutex_);
    return called_.wait_for(lock, child_patience, [&] { return calls_ >= count; });
  }
  // The exit code; afterwards the control plane can be looked at.
  int exit_code() {
    const int code = program_->wait_for_exit(child_patience).value_or(-1);
    plane_.release();
    api_.reset();
    return code;
  }

  std::mutex mutex_;
  std::condition_variable called_;
  int calls_ = 0;
  int hold_from_ = -1;
  std::optional<child_program> program_;
};

TEST_F(interrupted_branch, is_given_up_while_its_memory_is_copied) {
  is_in_the_making("branch-sb-1-1");
  start({});
  ASSERT_TRUE(has_called(3)) << "it polls";
  program_->signal(SIGINT);
  EXPECT_EQ(exit_code(), 130);
  EXPECT_EQ(program_->output(), "coppice: interrupted: branch branch-sb-1-1 is cancelled\n");
  EXPECT_TRUE(plane_.snapshots.empty());
}

TEST_F(interrupted_branch, that_the_daemon_does_not_give_up_is_said_to_go_on) {
  is_in_the_making("b1");
  plane_.refused_deletion = error{errc::conflict, 0, "it is being published"};
  start({"--tag", "b1"});
  ASSERT_TRUE(has_called(3));
  program_->signal(SIGINT);
  EXPECT_EQ(exit_code(), 130);
  EXPECT_EQ(program_->output(),
            "coppice: interrupted: branch b1 goes on: it is being published; see coppice snapshot ls\n");
}

TEST_F(interrupted_branch, is_given_up_before_the_daemon_has_answered) {
  is_in_the_making("b7");
  plane_.hold_branches = true;
  start({"--json"});
  ASSERT_TRUE(plane_.wait_for_held(1));
  program_->signal(SIGTERM);
  EXPECT_EQ(exit_code(), 143);
  const auto told = nlohmann::json::parse(program_->output())["error"];
  EXPECT_EQ(told["message"], "interrupted: branch b7 is cancelled");
  EXPECT_EQ(told["exit_code"], 143);
  EXPECT_TRUE(plane_.snapshots.empty());
}

TEST_F(interrupted_branch, leaves_a_snapshot_that_has_its_tag_but_is_not_in_the_making) {
  plane_.snapshots["b1"].tag = "b1";
  plane_.snapshots["b1"].branched_from = "sb-9";
  plane_.hold_branches = true;
  start({"--tag", "b1"});
  ASSERT_TRUE(plane_.wait_for_held(1));
  program_->signal(SIGINT);
  EXPECT_EQ(exit_code(), 130);
  EXPECT_THAT(program_->output(), HasSubstr("branch b1 goes on, if it was begun: no such branch of sandbox 'sb-1'"));
  EXPECT_EQ(plane_.snapshots.size(), 1u);
}

TEST_F(interrupted_branch, does_not_choose_among_several) {
  is_in_the_making("b1");
  is_in_the_making("b2");
  plane_.hold_branches = true;
  start({});
  ASSERT_TRUE(plane_.wait_for_held(1));
  program_->signal(SIGINT);
  EXPECT_EQ(exit_code(), 130);
  EXPECT_THAT(program_->output(), HasSubstr("the branch goes on, if it was begun: several of sandbox 'sb-1'"));
  EXPECT_EQ(plane_.snapshots.size(), 2u);
}

TEST_F(interrupted_branch, ends_at_a_second_signal_where_the_daemon_gives_no_answer) {
  is_in_the_making("b1");
  hold_from_ = 2;
  start({"--tag", "b1"});
  ASSERT_TRUE(plane_.wait_for_held(1));
  program_->signal(SIGINT);
  ASSERT_TRUE(plane_.wait_for_held(2)) << "it asks about the branch";
  program_->signal(SIGINT);
  EXPECT_EQ(exit_code(), 130);
  EXPECT_THAT(program_->output(), HasSubstr("branch b1 goes on: coppiced has not answered yet"));
}

}  // namespace
}  // namespace coppice
