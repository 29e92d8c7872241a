#include "doctor/doctor.hpp"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "api/server.hpp"
#include "base/fd.hpp"
#include "doctor/doctor_checks.hpp"
#include "options/exit_codes.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

void expect(const finding& result, verdict status, const std::string& found) {
  EXPECT_EQ(result.status, status) << result.found;
  EXPECT_THAT(result.found, HasSubstr(found));
  EXPECT_EQ(result.advice.empty(), status == verdict::ok) << "advice where it is needed: " << result.advice;
}

TEST(doctor, a_root_that_can_be_made_or_not) {
  const temp_dir folder;
  std::ofstream(folder.path() / "file") << "text";
  const auto root = [&](const std::string& path) { return doctor::check_root({.root = path}); };
  expect(root((folder.path() / "file/root").string()), verdict::failed, "is no folder");
  expect(root("/proc/coppice"), verdict::failed, "/proc");
  const auto usual = root((folder.path() / "a/b").string());
  EXPECT_NE(usual.status, verdict::failed) << usual.found;
  EXPECT_THAT(usual.found, HasSubstr("to be made in " + folder.path().string()));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "a"));
}

TEST(doctor, a_root_on_tmpfs_is_a_warning) {
  if (doctor::check_tmpfs({}).status != verdict::ok) GTEST_SKIP() << "no tmpfs at /dev/shm";
  const auto result = doctor::check_root({.root = "/dev/shm"});
  if (result.status == verdict::failed) GTEST_SKIP() << result.found;  // it is nearly full
  expect(result, verdict::warning, "tmpfs");
}

TEST(doctor, vmstates_that_would_go_to_a_disk_are_a_warning) {
  expect(doctor::check_tmpfs({.tmpfs = "/proc"}), verdict::warning, "/proc is no tmpfs");
  expect(doctor::check_tmpfs({.tmpfs = "/nowhere"}), verdict::warning, "/nowhere is no tmpfs");
}

TEST(doctor, a_program_that_is_no_vmm_fails) {
  expect(doctor::check_vmm({.vmm = "/bin/true"}), verdict::failed, "exit code");
  expect(doctor::check_vmm({.vmm = "/nowhere/firecracker"}), verdict::failed, "/nowhere/firecracker");
}

TEST(doctor, a_vmm_says_which_branches_it_can) {
  const auto result = doctor::check_vmm({.vmm = COPPICE_VMM});
  if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
  expect(result, verdict::ok, "live, full and diff branches");
}

TEST(doctor, a_port_is_free_or_a_daemons_or_somebody_elses) {
  const unique_fd holder(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof name;
  auto* const any = reinterpret_cast<sockaddr*>(&name);  // the socket API's own polymorphism
  ASSERT_EQ(::bind(holder.get(), any, length), 0);
  ASSERT_EQ(::getsockname(holder.get(), any, &length), 0);
  expect(doctor::check_listen({.listen = "127.0.0.1:" + std::to_string(ntohs(name.sin_port))}), verdict::failed,
         "Address already in use");
  fake_control_plane plane;
  const auto api = api_server::start("127.0.0.1", 0, plane);
  ASSERT_TRUE(api.ok());
  expect(doctor::check_listen({.listen = "127.0.0.1:" + std::to_string((*api)->port())}), verdict::ok, "answers");
  expect(doctor::check_listen({.listen = "127.0.0.1:0"}), verdict::ok, "free");
  expect(doctor::check_listen({.listen = "nowhere"}), verdict::failed, "bad address");
  expect(doctor::check_listen({.listen = "unix:/nowhere/socket"}), verdict::failed, "/nowhere is no folder");
}

TEST(doctor, what_no_flag_says_the_configuration_says) {
  const temp_dir folder;
  const auto file = (folder.path() / "coppiced.toml").string();
  std::ofstream(file) << "root = \"/r\"\nlisten = \"unix:/s\"\nvmm = \"/v\"\ncgroup = \"/g\"\ncopy-rate = \"1M\"\n";
  const auto all = completed({.config = file, .listen = "127.0.0.1:0"});
  EXPECT_EQ(all.root, "/r");
  EXPECT_EQ(all.vmm, "/v");
  EXPECT_EQ(all.cgroup, "/g");
  EXPECT_EQ(all.listen, "127.0.0.1:0");
  expect(doctor::check_configuration(all), verdict::ok, file);
}

TEST(doctor, a_configuration_that_cannot_be_read_fails_and_defaults_stand_in) {
  const temp_dir folder;
  const auto file = (folder.path() / "coppiced.toml").string();
  const auto absent = completed({.config = file});
  EXPECT_EQ(absent.root, "/var/lib/coppice");
  EXPECT_EQ(absent.listen, "127.0.0.1:8889");
  expect(doctor::check_configuration(absent), verdict::failed, file);
  std::ofstream(file) << "root = /r";
  expect(doctor::check_configuration({.config = file}), verdict::failed, file + ":1: ");
}

TEST(doctor, a_configured_cgroup_must_be_one) {
  const temp_dir folder;
  expect(doctor::check_memory_limits({.cgroup = folder.path().string()}), verdict::failed, "no folder of a cgroup v2");
}

TEST(doctor, features_of_userfaultfd_are_named) {
  const auto result = doctor::check_userfaultfd_features({});
  if (doctor::check_userfaultfd({}).status != verdict::ok) GTEST_SKIP() << result.found;
  expect(result, verdict::ok, "write-protection of shared memory");
}

TEST(doctor, every_check_answers_with_advice_where_something_is_wrong) {
  for (const auto& check : doctor_checks()) {
    const auto result = check.run(completed({.vmm = COPPICE_VMM, .listen = "127.0.0.1:0"}));
    EXPECT_FALSE(result.found.empty()) << check.name;
    EXPECT_EQ(result.advice.empty(), result.status == verdict::ok) << check.name << ": " << result.found;
  }
}

TEST(doctor, json_and_lines_tell_the_same_and_a_failure_is_1) {
  const doctor_options options{.root = "/proc/coppice", .vmm = "/bin/true", .listen = "127.0.0.1:0"};
  std::ostringstream json;
  std::ostringstream lines;
  EXPECT_EQ(run_doctor(options, true, json), exit_failed);
  EXPECT_EQ(run_doctor(options, false, lines), exit_failed);
  const auto answer = nlohmann::json::parse(json.str());
  EXPECT_EQ(answer["ok"], false);
  ASSERT_EQ(answer["checks"].size(), doctor_checks().size());
  for (const auto& check : answer["checks"]) {
    EXPECT_THAT(lines.str(), HasSubstr(check["status"].get<std::string>() + "  ")) << check;
    EXPECT_THAT(lines.str(), HasSubstr(check["check"].get<std::string>())) << check;
  }
}

}  // namespace
}  // namespace coppice
