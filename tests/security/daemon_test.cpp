// The real coppiced, made secure on its command line, and coppice as its client.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/e2e/daemon.hpp"
#include "tests/security/certificates.hpp"

namespace coppice::e2e {
namespace {

const std::string reader = "reader-token-0123456789";
const std::string writer = "writer-token-0123456789";

class secure_daemon : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
    write("tokens", "watch read " + reader + "\nops write " + writer + "\n");
    write("reader", reader + "\n");
    write("writer", writer + "\n");
  }
  std::string file(const std::string& name) const { return (folder_.path() / name).string(); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text;
    ::chmod(file(name).c_str(), 0600);
  }
  // Starts coppiced; its address, or "" if it ends.
  std::string start(std::vector<std::string> options) {
    options.insert(options.begin(), {"--root", file("root"), "--vmm", coppice_vmm.string()});
    daemon_.emplace(coppiced, options);
    const std::string marker = "listening on ";
    if (!daemon_->wait_for_output(marker) || !daemon_->wait_for_output("\n")) return "";
    const auto begin = daemon_->output().find(marker) + marker.size();
    return daemon_->output().substr(begin, daemon_->output().find_first_of(" \r\n", begin) - begin);
  }
  static cli_outcome cli(const std::string& server, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--server", server});
    return run_program(coppice_cli, arguments);
  }

  temp_dir folder_;
  std::optional<child_program> daemon_;
};

TEST_F(secure_daemon, does_not_start_where_others_could_reach_it_unguarded) {
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{}, std::vector<std::string>{"--token-file", file("tokens")}}) {
    std::vector<std::string> arguments{"--root", file("root"), "--listen", "0.0.0.0:0"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const auto outcome = run_program(coppiced, arguments);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_NE(outcome.output.find("--insecure-listen"), std::string::npos) << outcome.output;
  }
  EXPECT_FALSE(std::filesystem::exists(file("root"))) << "and touched nothing";
}

TEST_F(secure_daemon, serves_its_command_line_by_token_tls_and_certificate) {
  const certificates made;
  const auto url = start({"--listen", "127.0.0.1:0", "--token-file", file("tokens"), "--tls-cert",
                          made.file("server.crt"), "--tls-key", made.file("server.key"), "--tls-client-ca",
                          made.file("ca.crt"), "--allow-path", journal_kernel.parent_path().string()});
  ASSERT_TRUE(url.starts_with("https://127.0.0.1:")) << daemon_->output();
  const std::vector<std::string> by_tls{"--tls-ca",  made.file("ca.crt"),    "--tls-cert", made.file("client.crt"),
                                        "--tls-key", made.file("client.key")};
  const auto by = [&](const std::string& token, std::vector<std::string> words) {
    words.insert(words.begin(), by_tls.begin(), by_tls.end());
    words.insert(words.begin(), {"--token-file", file(token)});
    return cli(url, words);
  };
  const std::vector<std::string> create{"snapshot", "create", "base", "--kernel", journal_kernel.string(),
                                        "--memory", "64M"};
  const auto refused = by("reader", create);
  EXPECT_NE(refused.output.find("may only read"), std::string::npos) << refused.output;
  const auto made_it = by("writer", create);
  EXPECT_EQ(made_it.exit_code, 0) << made_it.output << daemon_->output();
  EXPECT_EQ(by("reader", {"snapshot", "info", "base"}).exit_code, 0);
  EXPECT_NE(by("writer", {"snapshot", "create", "x", "--kernel", "/etc/passwd"}).output.find("--allow-path"),
            std::string::npos);
  const auto anonymous = cli(url, {"--tls-ca", made.file("ca.crt"), "--token-file", file("writer"), "snapshot", "ls"});
  EXPECT_NE(anonymous.exit_code, 0);
  EXPECT_NE(anonymous.output.find("--tls-cert"), std::string::npos) << anonymous.output;
}

TEST_F(secure_daemon, reads_its_tokens_again_at_sighup_and_keeps_the_old_ones_if_they_are_wrong) {
  const auto url = start({"--listen", "127.0.0.1:0", "--token-file", file("tokens")});
  ASSERT_FALSE(url.empty()) << daemon_->output();
  const std::vector<std::string> list{"--token-file", file("reader"), "snapshot", "ls"};
  EXPECT_EQ(cli(url, list).exit_code, 0);
  write("tokens", "nonsense\n");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(daemon_->wait_for_output("the old tokens stay"));
  EXPECT_EQ(cli(url, list).exit_code, 0);
  write("tokens", "ops write " + writer + "\n");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(daemon_->wait_for_output("1 tokens read again"));
  EXPECT_NE(cli(url, list).exit_code, 0);
}

TEST_F(secure_daemon, reads_its_limits_again_at_sighup_and_keeps_the_old_ones_if_the_file_is_wrong) {
  write("toml", "listen = \"127.0.0.1:0\"\nbranch-copy-rate = 1\n");
  const auto url = start({"--config", file("toml")});
  ASSERT_FALSE(url.empty()) << daemon_->output();
  const std::vector<std::string> create{"snapshot", "create", "base", "--kernel", journal_kernel.string(),
                                        "--memory", "64M"};
  ASSERT_EQ(cli(url, create).exit_code, 0) << daemon_->output();
  const auto client = api_client::create(url);
  const auto made = client->post("/v1/sandboxes", {{"snapshot_tag", "base"}, {"n", 1}});
  ASSERT_TRUE(made.ok()) << made.error().message();
  const auto path = "/v1/sandboxes/" + made->at(0).at("id").get<std::string>() + "/branch";
  ASSERT_TRUE(client->post(path, {{"mode", "live"}, {"tag", "slow"}, {"wait", false}}).ok());

  write("toml", "branch-copy-rate = \"fast\"\n");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(daemon_->wait_for_output("the old limits stay: " + file("toml") + ":1: --branch-copy-rate"));
  EXPECT_EQ(client->get("/v1/snapshots/slow/info")->at("status"), "writing") << "at a byte a second";
  write("toml", "branch-copy-rate = 0\nbounce-memory = \"1M\"\nmax-sandboxes = 1\nmax-body-bytes = 1024\n");
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(daemon_->wait_for_output(
      "limits read again: branch-copy-rate = \"0\", max-sandboxes = \"1\", max-body-bytes = \"1024\""))
      << daemon_->output();
  ASSERT_TRUE(daemon_->wait_for_output("bounce-memory has changed: that needs a restart")) << daemon_->output();
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (client->get("/v1/snapshots/slow/info")->at("status") != "ready") {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << daemon_->output();
  }
  EXPECT_EQ(client->send("POST", "/v1/sandboxes", R"({"snapshot_tag": "base"})")->status, 503U);
  EXPECT_EQ(client->send("POST", "/v1/sandboxes", std::string(1025, ' '))->status, 413U);
}

TEST_F(secure_daemon, checks_its_configuration_and_ends) {
  write("toml", "root = \"" + file("root") + "\"\nlisten = \"127.0.0.1:8889\"\n");
  const auto good = run_program(coppiced, {"--check-config", "--config", file("toml")});
  EXPECT_EQ(good.exit_code, 0) << good.output;
  EXPECT_TRUE(good.output.ends_with("\nok\n")) << good.output;
  EXPECT_NE(good.output.find("listen = \"127.0.0.1:8889\"  # file\n"), std::string::npos) << good.output;
  write("toml", "root = \"" + file("root") + "\"\ntoken-file = \"/nowhere/tokens\"\n");
  const auto bad = run_program(coppiced, {"--check-config", "--config", file("toml")});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_NE(bad.output.find("/nowhere/tokens"), std::string::npos) << bad.output;
  EXPECT_FALSE(std::filesystem::exists(file("root")));
}

TEST_F(secure_daemon, serves_a_unix_socket_and_its_token_may_come_from_the_environment) {
  const auto url = start({"--listen", "unix:" + file("api.sock"), "--token-file", file("tokens")});
  ASSERT_EQ(url, "unix:" + file("api.sock")) << daemon_->output();
  EXPECT_EQ(cli(url, {"snapshot", "ls"}).exit_code, 2);
  for (const auto& [name, value] :
       {std::pair<const char*, std::string>{"COPPICE_TOKEN", reader}, {"COPPICE_TOKEN_FILE", file("writer")}}) {
    ::setenv(name, value.c_str(), 1);
    const auto listed = cli(url, {"snapshot", "ls"});
    ::unsetenv(name);
    EXPECT_EQ(listed.exit_code, 0) << name << ": " << listed.output;
  }
}

TEST_F(secure_daemon, records_what_was_asked_for_and_made_and_its_own_start_reload_and_end) {
  const auto url = start({"--listen", "127.0.0.1:0", "--audit-log", file("audit")});
  ASSERT_FALSE(url.empty()) << daemon_->output();
  const auto client = *api_client::create(url);
  ASSERT_TRUE(
      client.post("/v1/snapshots", {{"tag", "base"}, {"kernel", journal_kernel.string()}, {"memory_mib", 64}}).ok());
  const auto made = client.post("/v1/sandboxes", {{"snapshot_tag", "base"}, {"n", 1}});
  ASSERT_TRUE(made.ok()) << made.error().message();
  const auto id = made->at(0).at("id").get<std::string>();
  ASSERT_TRUE(client.post("/v1/sandboxes/" + id + "/branch", {{"mode", "full"}}).ok());
  EXPECT_TRUE(client.send("POST", "/v1/sandboxes/" + id + "/exec", R"({"args": ["sh", "-c", "the-secret"]})").ok());
  daemon_->signal(SIGHUP);
  ASSERT_TRUE(daemon_->wait_for_output("limits read again"));
  daemon_->signal(SIGTERM);
  ASSERT_TRUE(daemon_->wait_for_exit(patience));
  std::ifstream log(file("audit"));
  std::vector<nlohmann::json> entries;
  for (std::string line; std::getline(log, line);) {
    entries.push_back(nlohmann::json::parse(line));
    EXPECT_EQ(line.find("the-secret"), std::string::npos);
  }
  ASSERT_EQ(entries.size(), 7U);
  EXPECT_EQ(entries[0]["event"], "start");
  EXPECT_EQ(entries[1]["tag"], "base");
  EXPECT_EQ(entries[1]["kernel"], journal_kernel.string());
  EXPECT_EQ(entries[1]["made"][0], "base");
  EXPECT_EQ(entries[2]["snapshot_tag"], "base");
  EXPECT_EQ(entries[2]["count"], 1);
  EXPECT_EQ(entries[2]["made"][0], id);
  EXPECT_EQ(entries[3]["mode"], "full");
  EXPECT_EQ(entries[3]["made"][0], "branch-" + id + "-1");
  EXPECT_EQ(entries[4]["program"], "sh");
  EXPECT_EQ(entries[5]["event"], "reload");
  EXPECT_EQ(entries[6]["event"], "stop");
}

TEST_F(secure_daemon, records_each_request_in_its_audit_log_even_refused_ones) {
  const auto url = start({"--listen", "127.0.0.1:0", "--token-file", file("tokens"), "--audit-log", file("audit")});
  ASSERT_FALSE(url.empty()) << daemon_->output();
  cli(url, {"--token-file", file("reader"), "snapshot", "rm", "base"});
  cli(url, {"snapshot", "ls"});
  cli(url, {"--token-file", file("writer"), "snapshot", "ls"});
  daemon_->signal(SIGTERM);  // at its end all is written
  ASSERT_TRUE(daemon_->wait_for_exit(patience));
  std::ifstream log(file("audit"));
  std::vector<std::string> seen;
  for (std::string line; std::getline(log, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry["event"] != "request") continue;
    seen.push_back(entry["who"].get<std::string>() + " " + entry["method"].get<std::string>() + " " +
                   entry["path"].get<std::string>() + " " + std::to_string(entry["status"].get<int>()));
    EXPECT_EQ(line.find(writer), std::string::npos);
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"watch DELETE /v1/snapshots/base 403", "none GET /v1/snapshots 401",
                                            "ops GET /v1/snapshots 200"}));
}

}  // namespace
}  // namespace coppice::e2e
