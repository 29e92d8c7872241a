#include "cli/coppice.hpp"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "api/server.hpp"
#include "base/file.hpp"
#include "base/units.hpp"
#include "cli/commands.hpp"
#include "options/exit_codes.hpp"
#include "options/listen_address.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class coppice_command : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = api_server::start("127.0.0.1", 0, plane_);
    ASSERT_TRUE(started.ok());
    api_ = *std::move(started);
    server_ = "http://127.0.0.1:" + std::to_string(api_->port());
  }

  // Runs `coppice --server ... words`; keeps what it printed.
  int run(std::vector<const char*> words) {
    words.insert(words.begin(), {"coppice", "--server", server_.c_str()});
    std::ostringstream out;
    std::ostringstream err;
    const int code = run_coppice(static_cast<int>(words.size()), words.data(), out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
  std::string server_;
  std::string out_;
  std::string err_;
};

TEST_F(coppice_command, help_tells_exit_codes_and_an_example_for_each_command) {
  EXPECT_EQ(run({"--help"}), exit_ok);
  EXPECT_THAT(out_, AllOf(HasSubstr(exit_codes_help), HasSubstr("Example:")));
  const std::vector<std::vector<const char*>> commands = {{"snapshot"},
                                                          {"snapshot", "create"},
                                                          {"snapshot", "ls"},
                                                          {"snapshot", "info"},
                                                          {"snapshot", "verify"},
                                                          {"snapshot", "rm"},
                                                          {"sandbox"},
                                                          {"sandbox", "create"},
                                                          {"sandbox", "ls"},
                                                          {"sandbox", "info"},
                                                          {"sandbox", "rm"},
                                                          {"branch"},
                                                          {"verify"},
                                                          {"doctor"},
                                                          {"top"},
                                                          {"completion"},
                                                          {"demo"}};
  for (auto words : commands) {
    words.push_back("--help");
    EXPECT_EQ(run(words), exit_ok) << words.front();
    EXPECT_THAT(out_, HasSubstr("Example:\n  coppice ")) << words.front();
  }
}

TEST_F(coppice_command, wrong_usage_is_2) {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"snapshot"},
      {"nonsense"},
      {"snapshot", "rm"},
      {"branch"},
      {"branch", "sb-1", "--mode", "fast"},
      {"sandbox", "create", "b1", "-n", "many"},
      {"snapshot", "create", "b1"},
      {"snapshot", "create", "b1", "--kernel", "/k", "--memory", "12Q"},
      {"demo", "--branches", "0"},
      {"top", "--interval", "0"},
      {"completion", "tcsh"}};
  for (const auto& words : wrong) EXPECT_EQ(run(words), exit_usage) << err_;
  server_ = "nowhere";
  EXPECT_EQ(run({"snapshot", "ls"}), exit_usage);
}

TEST_F(coppice_command, each_kind_of_failure_has_its_exit_code_and_sentence) {
  const std::vector<std::pair<errc, int>> wanted = {{errc::invalid_argument, 2},
                                                    {errc::not_found, 3},
                                                    {errc::already_exists, 4},
                                                    {errc::conflict, 4},
                                                    {errc::unsupported, 4},
                                                    {errc::unavailable, 5},
                                                    {errc::no_space, 5},
                                                    {errc::deadline_exceeded, 5},
                                                    {errc::io, 1},
                                                    {errc::internal, 1},
                                                    {errc::corrupt, 6}};
  for (const auto& [code, exit] : wanted) {
    plane_.failure = error{code, 0, "it went wrong"};
    EXPECT_EQ(run({"snapshot", "ls"}), exit) << to_string(code);
    EXPECT_EQ(err_, "coppice: it went wrong\n");
    EXPECT_EQ(out_, "");
  }
}

TEST_F(coppice_command, no_daemon_is_5_with_what_to_do) {
  server_ = "127.0.0.1:1";
  EXPECT_EQ(run({"snapshot", "ls"}), exit_unavailable);
  EXPECT_THAT(err_, HasSubstr("is it running?"));
}

TEST_F(coppice_command, snapshots_are_listed_as_a_table_or_as_json) {
  plane_.snapshots["base"].tag = "base";
  plane_.snapshots["base"].memory_bytes = 256 * mib;
  EXPECT_EQ(run({"snapshot", "ls"}), exit_ok);
  EXPECT_THAT(out_, AllOf(HasSubstr("TAG"), HasSubstr("base"), HasSubstr("256.0 MiB")));
  EXPECT_EQ(run({"snapshot", "ls", "--json"}), exit_ok);
  EXPECT_EQ(nlohmann::json::parse(out_)[0]["tag"], "base");
  EXPECT_EQ(run({"snapshot", "ls", "-q"}), exit_ok);
  EXPECT_EQ(out_, "base\n");
}

TEST_F(coppice_command, a_snapshot_is_created_with_an_absolute_kernel_path) {
  EXPECT_EQ(run({"snapshot", "create", "base", "--kernel", "./k.elf", "--memory", "64M", "--vcpus", "2", "--boot-args",
                 "a b", "--rootfs", "r.img", "--boot-time-ms", "15000"}),
            exit_ok)
      << err_;
  ASSERT_TRUE(plane_.created_snapshot);
  EXPECT_EQ(plane_.created_snapshot->kernel, std::filesystem::current_path() / "k.elf");
  EXPECT_EQ(plane_.created_snapshot->memory_bytes, 64 * mib);
  EXPECT_EQ(plane_.created_snapshot->vcpus, 2u);
  EXPECT_EQ(plane_.created_snapshot->boot_args, "a b");
  EXPECT_EQ(plane_.created_snapshot->rootfs->path, std::filesystem::current_path() / "r.img");
  EXPECT_TRUE(plane_.created_snapshot->rootfs->read_only);
  EXPECT_EQ(plane_.created_snapshot->boot_time, std::chrono::seconds(15));
}

TEST_F(coppice_command, snapshots_are_shown_and_removed) {
  plane_.snapshots["b1"].tag = "b1";
  EXPECT_EQ(run({"snapshot", "info", "b1"}), exit_ok);
  EXPECT_THAT(out_, HasSubstr("memory_checksum"));
  EXPECT_EQ(run({"snapshot", "rm", "b1"}), exit_ok);
  EXPECT_EQ(out_, "removed b1\n");
  EXPECT_EQ(run({"snapshot", "rm", "b1"}), exit_not_found);
  EXPECT_EQ(run({"snapshot", "rm", "../b1"}), exit_usage);
  EXPECT_THAT(err_, HasSubstr("bad tag '../b1'"));
}

TEST_F(coppice_command, verification_that_finds_bad_data_is_6) {
  plane_.report = verify_report{.tag = "b1", .ok = true, .chunks = 128, .vmstate_ok = true, .is_journal = true};
  EXPECT_EQ(run({"verify", "b1"}), exit_ok);
  EXPECT_THAT(out_, AllOf(HasSubstr("b1: ok, 128 chunks"), HasSubstr("0 torn")));
  plane_.report->ok = false;
  plane_.report->torn_pages = 3;
  EXPECT_EQ(run({"snapshot", "verify", "b1"}), exit_bad_data);
  EXPECT_THAT(out_, AllOf(HasSubstr("BAD"), HasSubstr("3 torn")));
  EXPECT_EQ(run({"verify", "b1", "--json"}), exit_bad_data);
}

TEST_F(coppice_command, sandboxes_are_created_listed_shown_and_removed) {
  EXPECT_EQ(run({"sandbox", "create", "b1", "-n", "4"}), exit_ok);
  EXPECT_EQ(plane_.created_sandboxes->n, 4u);
  EXPECT_THAT(out_, HasSubstr("sb-4"));
  plane_.sandboxes["sb-1"].id = "sb-1";
  EXPECT_EQ(run({"sandbox", "ls"}), exit_ok);
  EXPECT_THAT(out_, HasSubstr("sb-1"));
  EXPECT_EQ(run({"sandbox", "ls", "-q"}), exit_ok);
  EXPECT_EQ(out_, "sb-1\n");
  EXPECT_EQ(run({"sandbox", "info", "sb-1"}), exit_ok);
  EXPECT_EQ(run({"sandbox", "rm", "sb-1"}), exit_ok);
  EXPECT_EQ(run({"sandbox", "info", "sb-1"}), exit_not_found);
}

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
  EXPECT_EQ(branch_sandbox(context, {.id = "sb-1", .tag = "b1", .trace_file = {}}), exit_ok) << err.str();
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

TEST_F(coppice_command, a_full_branch_waits_in_the_daemon) {
  EXPECT_EQ(run({"branch", "sb-1", "--mode", "full"}), exit_ok);
  EXPECT_TRUE(plane_.branched->wait);
  EXPECT_EQ(plane_.branched->mode, branch_mode::full);
}

TEST_F(coppice_command, a_demo_without_a_daemon_binary_says_so) {
  EXPECT_NE(run({"demo", "--branches", "1"}), exit_ok);
  EXPECT_THAT(err_, AllOf(HasSubstr("the demo failed"), HasSubstr("coppiced")));
}

TEST(listen_address, is_an_ip_and_a_port) {
  EXPECT_EQ(parse_listen_address("127.0.0.1:8889")->port, 8889);
  EXPECT_EQ(parse_listen_address("[::1]:0")->ip, "::1");
  EXPECT_EQ(to_string(*parse_listen_address("[::1]:1")), "[::1]:1");
  for (const char* text : {"", "8889", ":8889", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80",
                           "127.0.0.1:80x", "127.0.0.1:-1"}) {
    EXPECT_FALSE(parse_listen_address(text).ok()) << text;
  }
}

}  // namespace
}  // namespace coppice
