#include <gmock/gmock.h>

#include <filesystem>
#include <thread>

#include "base/units.hpp"
#include "cli/snapshot_commands.hpp"
#include "options/exit_codes.hpp"
#include "options/listen_address.hpp"
#include "tests/cli/coppice_command.hpp"
#include "tests/support/one_answer.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

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
                                                          {"exec"},
                                                          {"eval"},
                                                          {"ping"},
                                                          {"journal"},
                                                          {"events"},
                                                          {"version"},
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
  EXPECT_EQ(run({"snapshot", "rm"}), exit_usage);
  EXPECT_THAT(err_, AllOf(HasSubstr("coppice: "), HasSubstr("See 'coppice snapshot rm --help'.\n")));
  EXPECT_EQ(run({"nonsense"}), exit_usage);
  EXPECT_THAT(err_, HasSubstr("See 'coppice --help'."));
  server_ = "nowhere";
  EXPECT_EQ(run({"snapshot", "ls"}), exit_usage);
}

TEST_F(coppice_command, failures_are_json_too_where_json_is_wanted) {
  plane_.failure = error{errc::conflict, 0, "it went wrong"};
  const nlohmann::json wanted = {
      {"error", {{"code", "conflict"}, {"message", "it went wrong"}, {"exit_code", exit_conflict}}}};
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"snapshot", "ls"},
                                             {"snapshot", "ls", "-q"},
                                             {"snapshot", "info", "b1"},
                                             {"snapshot", "create", "b1", "--kernel", "/k"},
                                             {"verify", "b1"},
                                             {"sandbox", "ls"},
                                             {"sandbox", "create", "b1", "-q"},
                                             {"branch", "sb-1"},
                                             {"journal", "sb-1"},
                                             {"top"}}) {
    auto with_json = words;
    with_json.push_back("--json");
    EXPECT_EQ(run(with_json), exit_conflict) << words[0];
    EXPECT_EQ(nlohmann::json::parse(err_), wanted);
    EXPECT_EQ(out_, "");
  }
}

TEST_F(coppice_command, wrong_usage_is_json_too) {
  EXPECT_EQ(run({"snapshot", "rm", "--json"}), exit_usage);
  EXPECT_EQ(nlohmann::json::parse(err_)["error"]["code"], "invalid_argument");
  EXPECT_THAT(nlohmann::json::parse(err_)["error"]["message"].get<std::string>(), HasSubstr("snapshot rm --help"));
  EXPECT_EQ(run({"snapshot", "create", "--json", "b1", "--memory", "12Q"}), exit_usage);
  EXPECT_EQ(nlohmann::json::parse(err_)["error"]["exit_code"], exit_usage);
  server_ = "nowhere";
  EXPECT_EQ(run({"snapshot", "ls", "--json"}), exit_usage);
  EXPECT_THAT(nlohmann::json::parse(err_)["error"]["message"].get<std::string>(), HasSubstr("nowhere"));
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

TEST_F(coppice_command, a_snapshot_is_created_with_an_absolute_initrd_path) {
  one_answer daemon("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", false);
  server_ = daemon.url();
  EXPECT_EQ(run({"snapshot", "create", "base", "--kernel", "/k", "--initrd", "./initrd.img"}), exit_ok) << err_;
  const std::string request = daemon.request();
  const auto body = request.substr(request.find("\r\n\r\n") + 4);
  EXPECT_EQ(nlohmann::json::parse(body)["initrd"], (std::filesystem::current_path() / "initrd.img").string());
}

TEST_F(coppice_command, snapshots_are_shown_and_removed) {
  plane_.snapshots["b1"].tag = "b1";
  EXPECT_EQ(run({"snapshot", "info", "b1"}), exit_ok);
  EXPECT_THAT(out_, HasSubstr("memory_checksum"));
  EXPECT_EQ(run({"snapshot", "rm", "b1"}), exit_ok);
  EXPECT_EQ(out_, "removed b1\n");
  EXPECT_EQ(plane_.deleted_with_descendants, false);
  EXPECT_EQ(run({"snapshot", "rm", "b1"}), exit_not_found);
  EXPECT_EQ(run({"snapshot", "rm", "../b1"}), exit_usage);
  EXPECT_THAT(err_, HasSubstr("bad tag '../b1'"));
}

TEST_F(coppice_command, each_name_is_removed_also_after_one_that_cannot_be) {
  plane_.snapshots["b1"].tag = "b1";
  plane_.snapshots["b3"].tag = "b3";
  EXPECT_EQ(run({"snapshot", "rm", "b1", "b2", "../x", "b3", "--cascade"}), exit_not_found) << "of the first failure";
  EXPECT_TRUE(plane_.snapshots.empty());
  EXPECT_EQ(plane_.deleted_with_descendants, true);
  EXPECT_EQ(out_, "removed b1\nremoved b3\n");
  EXPECT_THAT(err_, AllOf(HasSubstr("no snapshot 'b2'"), HasSubstr("bad tag '../x'")));
  plane_.sandboxes["sb-1"].id = "sb-1";
  plane_.sandboxes["sb-3"].id = "sb-3";
  EXPECT_EQ(run({"sandbox", "rm", "sb-1", "sb-2", "sb-3", "--json"}), exit_not_found);
  EXPECT_TRUE(plane_.sandboxes.empty());
  EXPECT_EQ(nlohmann::json::parse(out_), nlohmann::json({{"removed", {"sb-1", "sb-3"}}}));
  EXPECT_EQ(nlohmann::json::parse(err_)["error"]["code"], "not_found");
}

TEST_F(coppice_command, a_snapshot_is_waited_for_as_long_as_the_daemon_takes) {
  auto client = *api_client::create(server_);
  client.set_timeout(std::chrono::milliseconds(20));
  std::ostringstream out;
  std::ostringstream err;
  const command_context context{client, false, false, out, err};
  plane_.hold = true;
  int code = -1;
  snapshot_create_arguments base;
  base.tag = "base";
  base.kernel = "/k";
  base.memory_bytes = 64 * mib;
  std::thread creating([&] { code = create_snapshot(context, base); });
  EXPECT_TRUE(plane_.wait_for_held(1));
  EXPECT_EQ(client.get("/v1/snapshots").error().code, errc::deadline_exceeded) << "so long it has waited, too";
  plane_.release();
  creating.join();
  EXPECT_EQ(code, exit_ok) << err.str();
}

TEST_F(coppice_command, names_only_are_printed_of_what_is_created_if_that_is_wanted) {
  EXPECT_EQ(run({"snapshot", "create", "base", "--kernel", "/k", "-q"}), exit_ok);
  EXPECT_EQ(out_, "base\n");
  EXPECT_EQ(run({"sandbox", "create", "base", "-n", "2", "-q"}), exit_ok);
  EXPECT_EQ(out_, "sb-1\nsb-2\n");
  EXPECT_EQ(run({"snapshot", "create", "base", "--kernel", "/k", "-q", "--json"}), exit_ok);
  EXPECT_EQ(out_, "base\n") << "as ls -q";
}

TEST_F(coppice_command, versions_are_of_this_program_the_daemon_and_its_vmm) {
  EXPECT_EQ(run({"version"}), exit_ok);
  EXPECT_THAT(out_, AllOf(HasSubstr("coppice "), HasSubstr("coppiced "), HasSubstr(server_), HasSubstr("coppice-vmm"),
                          HasSubstr("for live it lacks PUT /uffd/wp")));
  EXPECT_EQ(run({"version", "--json"}), exit_ok);
  auto told = nlohmann::json::parse(out_);
  EXPECT_EQ(told["client"]["name"], "coppice");
  EXPECT_EQ(told["daemon"]["vmm"]["name"], "coppice-vmm");
  EXPECT_EQ(run({"--version"}), exit_ok);
  EXPECT_EQ(out_, "coppice " + told["client"]["version"].get<std::string>() + "\n");
}

TEST_F(coppice_command, without_a_daemon_version_tells_what_it_knows_and_fails) {
  server_ = "127.0.0.1:1";
  EXPECT_EQ(run({"version"}), exit_unavailable);
  EXPECT_THAT(out_, AllOf(HasSubstr("coppice "), Not(HasSubstr("coppiced"))));
  EXPECT_THAT(err_, HasSubstr("is it running?"));
  EXPECT_EQ(run({"version", "--json"}), exit_unavailable);
  EXPECT_TRUE(nlohmann::json::parse(out_)["daemon"].is_null());
  EXPECT_EQ(nlohmann::json::parse(err_)["error"]["code"], "unavailable");
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

TEST_F(coppice_command, a_demo_without_a_daemon_binary_says_so) {
  EXPECT_NE(run({"demo", "--branches", "1"}), exit_ok);
  EXPECT_THAT(err_, AllOf(HasSubstr("the demo failed"), HasSubstr("coppiced")));
  EXPECT_NE(run({"--json", "demo", "--branches", "1"}), exit_ok);
  EXPECT_TRUE(nlohmann::json::parse(out_).is_object());
  EXPECT_THAT(err_, HasSubstr(R"("message":"the demo failed: )"));
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
