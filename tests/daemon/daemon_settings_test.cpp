// Flags, environment and file of coppiced, and what --check-config finds.
#include "daemon/daemon_settings.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <sstream>

#include "base/file.hpp"
#include "daemon/check_config.hpp"
#include "tests/security/certificates.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class daemon_settings_test : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const auto& name : set_) ::unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string file(const std::string& text, const std::string& name = "coppiced.toml") const {
    EXPECT_TRUE(write_text_file(path(name), text).ok());
    ::chmod(path(name).c_str(), 0600);
    return path(name);
  }
  // What `coppiced words...` would make of them; out_ and err_ get what it printed.
  std::variant<daemon_settings, int> parse(std::vector<std::string> words) {
    words.insert(words.begin(), "coppiced");
    std::vector<const char*> argv;
    for (const auto& word : words) argv.push_back(word.c_str());
    std::ostringstream out;
    std::ostringstream err;
    auto parsed = parse_daemon_settings(static_cast<int>(argv.size()), argv.data(), out, err);
    out_ = out.str();
    err_ = err.str();
    return parsed;
  }
  // REQUIRES: they are right.
  daemon_settings settings(const std::vector<std::string>& words) {
    auto parsed = parse(words);
    EXPECT_TRUE(std::holds_alternative<daemon_settings>(parsed)) << err_;
    return std::get<daemon_settings>(parsed);
  }
  void expect_refused(const std::vector<std::string>& words, const std::string& message) {
    auto parsed = parse(words);
    ASSERT_TRUE(std::holds_alternative<int>(parsed)) << message;
    EXPECT_EQ(std::get<int>(parsed), 2);
    EXPECT_THAT(err_, HasSubstr(message));
  }
  static std::string origin_of(const daemon_settings& all, const std::string& name) {
    for (const auto& each : all.effective) {
      if (each.name == name) return each.origin;
    }
    return "absent";
  }

  temp_dir folder_;
  std::vector<std::string> set_;
  std::string out_;
  std::string err_;
};

TEST_F(daemon_settings_test, a_flag_beats_the_environment_and_that_the_file_and_that_the_default) {
  const auto config = file(
      "root = \"/file\"\nlog-level = \"warn\"\ncopy-rate = \"1M\"\nbranch-copy-rate = 4096\n"
      "allow-path = [\"/a\", \"/b\"]\ninsecure-listen = true\n");
  set("COPPICED_LOG_LEVEL", "debug");
  set("COPPICED_COPY_RATE", "2M");
  const auto all = settings({"--config", config, "--copy-rate", "3M"});
  EXPECT_EQ(all.copy_rate, "3M");
  EXPECT_EQ(all.log_level, "debug");
  EXPECT_EQ(all.root, "/file");
  EXPECT_EQ(all.branch_copy_rate, "4096");
  EXPECT_EQ(all.bounce_memory, "256M");
  EXPECT_THAT(all.allowed_paths, ElementsAre("/a", "/b"));
  EXPECT_TRUE(all.insecure_listen);
  EXPECT_EQ(origin_of(all, "copy-rate"), "flag");
  EXPECT_EQ(origin_of(all, "log-level"), "environment");
  EXPECT_EQ(origin_of(all, "root"), "file");
  EXPECT_EQ(origin_of(all, "bounce-memory"), "default");
}

TEST_F(daemon_settings_test, a_list_and_the_file_itself_may_come_from_the_environment) {
  set("COPPICED_CONFIG", file("root = \"/file\"\nallow-path = [\"/x\"]\n"));
  set("COPPICED_ALLOW_PATH", "/a:/b");
  set("COPPICED_INSECURE_LISTEN", "false");
  set("COPPICED_TOKEN_FILE", "");
  const auto all = settings({});
  EXPECT_EQ(all.root, "/file");
  EXPECT_THAT(all.allowed_paths, ElementsAre("/a", "/b"));
  EXPECT_FALSE(all.insecure_listen);
  EXPECT_EQ(origin_of(all, "token-file"), "default") << "an empty variable sets nothing";
}

TEST_F(daemon_settings_test, what_is_wrong_is_named_with_its_place) {
  const auto with = [&](const std::string& text) {
    return std::vector<std::string>{"--root", "/r", "--config", file(text)};
  };
  expect_refused(with("\ncopy-rat = \"1M\""), "coppiced.toml:2: there is no setting copy-rat;");
  expect_refused(with("config = \"x\""), "coppiced.toml:1: there is no setting config;");
  expect_refused(with("copy-rate = \"12Q\""), "coppiced.toml:1: --copy-rate: ");
  expect_refused(with("log-level = [\"warn\", \"info\"]"), "log-level takes one value");
  expect_refused(with("audit-log-bytes = 5"), "coppiced.toml:1: --audit-log-bytes: ");
  expect_refused(with("insecure-listen = \"perhaps\""), "insecure-listen");
  expect_refused(with("nonsense"), "coppiced.toml:1: Error while parsing");
  expect_refused(with("listen = \"nowhere\""), "bad address 'nowhere'");
  expect_refused(with("tls-cert = \"/c\""), "tls-cert and tls-key need each other");
  expect_refused(with("tls-client-ca = \"/c\""), "tls-client-ca needs tls-cert");
  expect_refused({"--root", "/r", "--config", path("absent")}, path("absent"));
  expect_refused({"--root", "/r", "--config", folder_.path().string()}, "Is a directory");
  expect_refused({}, "root is not set");
  set("COPPICED_BRANCH_COPY_RATE", "fast");
  expect_refused({"--root", "/r"}, "COPPICED_BRANCH_COPY_RATE: --branch-copy-rate: ");
}

TEST_F(daemon_settings_test, a_reading_again_finds_what_changed) {
  const auto config = file("root = \"/r\"\ncopy-rate = \"1M\"\n");
  const auto before = settings({"--config", config});
  file("root = \"/r\"\ncopy-rate = \"2M\"\nbounce-memory = \"1M\"\n");
  const char* const argv[] = {"coppiced", "--config", config.c_str()};
  const auto after = read_daemon_settings(3, argv);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->copy_rate, "2M");
  EXPECT_THAT(changes_that_need_a_restart(before, *after), ElementsAre("bounce-memory"));
  EXPECT_THAT(changes_of_limits(before, *after), ElementsAre("copy-rate = \"2M\""));
  file("root = 1.5");
  EXPECT_FALSE(read_daemon_settings(3, argv).ok());
}

TEST_F(daemon_settings_test, limits_come_from_every_place_and_are_what_the_daemon_gets) {
  set("COPPICED_MAX_BRANCHES", "7");
  set("COPPICED_BODY_TIMEOUT_MS", "250");
  const auto all = settings({"--config", file("root = \"/r\"\nmax-sandboxes = 5\nmax-body-bytes = 4096\n"),
                             "--max-connections", "3", "--max-starts", "2"});
  EXPECT_EQ(all.limits.branches, 7U);
  EXPECT_EQ(all.limits.sandboxes, 5U);
  EXPECT_EQ(all.limits.parallel_starts, 2U);
  EXPECT_EQ(all.limits.branches_per_parent, daemon_limits{}.branches_per_parent);
  const auto serving = secure_options(all);
  ASSERT_TRUE(serving.ok());
  EXPECT_EQ(serving->limits.connections, 3U);
  EXPECT_EQ(serving->limits.body_bytes, 4096U);
  EXPECT_EQ(serving->limits.body_timeout, std::chrono::milliseconds(250));
  EXPECT_EQ(serving->limits.write_timeout, client_limits{}.write_timeout);
}

TEST_F(daemon_settings_test, a_limit_out_of_its_range_is_told_with_the_range) {
  const auto with = [&](const std::string& text) {
    return std::vector<std::string>{"--root", "/r", "--config", file(text)};
  };
  expect_refused(with("max-connections = 0"), "coppiced.toml:1: --max-connections: Value 0 not in range 1 to 100000");
  expect_refused(with("max-body-bytes = 10"), "coppiced.toml:1: --max-body-bytes: Value 10 not in range 1024 to ");
  expect_refused(with("max-header-bytes = 9999999"), "--max-header-bytes: Value 9999999 not in range 1024 to 1048576");
  expect_refused(with("max-branches = \"many\""), "--max-branches: Value many not in range 1 to 1000");
  expect_refused(with("max-branches-per-sandbox = 9"), "--max-branches-per-sandbox: Value 9 not in range 1 to 8");
  expect_refused(with("idle-timeout-ms = 5"), "--idle-timeout-ms: Value 5 not in range 100 to 3600000");
  expect_refused({"--root", "/r", "--max-sandboxes", "-1"}, "--max-sandboxes: ");
}

TEST_F(daemon_settings_test, the_example_file_holds_every_option_with_its_default) {
  const std::string example = COPPICE_SOURCES "/deploy/config/coppiced.toml";
  const std::string text = "\n" + *read_text_file(example);
  parse({"--help"});
  std::istringstream help(out_);
  unsigned options = 0;
  for (std::string line; std::getline(help, line);) {
    const auto begin = line.find("--");
    if (!line.starts_with("  -") || begin == std::string::npos) continue;
    const auto name = line.substr(begin + 2, line.find_first_of(" ,", begin) - begin - 2);
    if (name == "help" || name == "version" || name == "config" || name == "check-config" || name == "completion")
      continue;
    ++options;
    EXPECT_THAT(text, AnyOf(HasSubstr("\n" + name + " = "), HasSubstr("\n#" + name + " = "))) << name;
  }
  EXPECT_GE(options, 27U) << out_;
  std::string uncommented;  // prose has a blank after the #
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool is_default = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    uncommented += line.substr(is_default ? 1 : 0) + "\n";
  }
  const auto bare = settings({"--root", "/var/lib/coppice"});
  const auto all = file(uncommented);
  for (const auto& config : {example, all}) {
    const auto read = settings({"--config", config});
    EXPECT_THAT(changes_that_need_a_restart(bare, read), ElementsAre()) << config;
    EXPECT_THAT(changes_of_limits(bare, read), ElementsAre()) << config;
  }
}

class check_config_test : public daemon_settings_test {
 protected:
  void expect_wrong(std::vector<std::string> words, const std::string& message) {
    const auto checked = check(std::move(words));
    ASSERT_FALSE(checked.ok()) << message;
    EXPECT_THAT(checked.error().message(), HasSubstr(message));
  }
  result<void> check(std::vector<std::string> words) {
    words.insert(words.begin(), {"--config", file("root = \"" + path("root") + "\"\nvmm = \"/bin/true\"\n")});
    return check_settings(settings(words));
  }
};

TEST_F(check_config_test, good_settings_are_ok_and_nothing_is_made) {
  const certificates made;
  const auto tokens = file("ops write 0123456789abcdef\n", "tokens");
  const auto checked = check({"--listen", "127.0.0.1:1", "--token-file", tokens, "--tls-cert", made.file("server.crt"),
                              "--tls-key", made.file("server.key"), "--tls-client-ca", made.file("ca.crt"),
                              "--allow-path", folder_.path().string(), "--audit-log", path("audit")});
  EXPECT_TRUE(checked.ok()) << checked.error().message();
  EXPECT_TRUE(check({"--listen", "unix:" + path("socket")}).ok());
  EXPECT_TRUE(check({"--listen", "[::1]:0"}).ok());
  EXPECT_FALSE(std::filesystem::exists(path("root")));
  EXPECT_FALSE(std::filesystem::exists(path("audit")));
}

TEST_F(check_config_test, each_thing_that_would_keep_it_from_starting_is_found) {
  const certificates made;
  expect_wrong({"--listen", "0.0.0.0:1"}, "--insecure-listen");
  expect_wrong({"--listen", "localhost:1"}, "localhost is no IP address");
  expect_wrong({"--listen", "192.0.2.1:1", "--insecure-listen"}, "can't use 192.0.2.1");
  expect_wrong({"--listen", "unix:/nowhere/socket"}, "/nowhere is no folder");
  expect_wrong({"--token-file", path("absent")}, path("absent"));
  expect_wrong({"--token-file", file("nonsense", "bad")}, "bad");
  expect_wrong({"--tls-cert", made.file("server.crt"), "--tls-key", made.file("client.key")}, "TLS key");
  expect_wrong({"--tls-cert", path("absent"), "--tls-key", made.file("server.key")}, "TLS certificate");
  expect_wrong({"--allow-path", path("absent")}, "allowed path");
  expect_wrong({"--vmm", "/nowhere/firecracker"}, "vmm /nowhere/firecracker");
  expect_wrong({"--vmm", file("", "text")}, "no program");
  expect_wrong({"--root", file("", "text") + "/root"}, "root: ");
  expect_wrong({"--root", "/" + std::string(200, 'r')}, "too long");
  expect_wrong({"--audit-log", "/nowhere/audit"}, "audit-log: /nowhere");
  expect_wrong({"--bounce-memory", "1"}, "bounce-memory");
  expect_wrong({"--cgroup", folder_.path().string()}, "no folder of a cgroup v2");
}

TEST_F(check_config_test, what_is_printed_can_be_read_again) {
  std::ostringstream printed;
  print_settings(printed, settings({"--root", "/r \"1\"", "--allow-path", "/a", "--insecure-listen"}));
  EXPECT_THAT(printed.str(),
              AllOf(HasSubstr("root = \"/r \\\"1\\\"\"  # flag\n"), HasSubstr("copy-rate = \"0\"  # default"),
                    HasSubstr("insecure-listen = true  # flag")));
  const auto again = settings({"--config", file(printed.str())});
  EXPECT_EQ(again.root, "/r \"1\"");
  EXPECT_THAT(again.allowed_paths, ElementsAre("/a"));
}

}  // namespace
}  // namespace coppice
