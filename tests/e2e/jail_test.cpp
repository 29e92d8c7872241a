// VMMs in jails: what they can reach, and what is left of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.hpp"
#include "tests/e2e/daemon.hpp"
#include "tests/e2e/stand_in_jailer.hpp"

namespace coppice::e2e {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<std::string> entries_of(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& each : std::filesystem::directory_iterator(folder)) names.push_back(each.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class jail_e2e : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
    if (::geteuid() != 0) GTEST_SKIP() << "jails need root";
    daemon_.emplace(coppice_vmm, jailed);
    ASSERT_TRUE(daemon_->up()) << daemon_->process().output();
    parent_ = daemon_->start_parent("64M");
    ASSERT_FALSE(parent_.empty()) << daemon_->process().output();
  }
  std::string proc_of(const std::string& sandbox) const {
    const auto info = daemon_->api().get("/v1/sandboxes/" + sandbox);
    return "/proc/" + std::to_string(info->at("pid").get<int>());
  }
  std::string status_of(const std::string& sandbox) const {
    return read_text_file(proc_of(sandbox) + "/status").value();
  }

  const std::vector<std::string> jailed{"--jailer", stand_in_jailer, "--jail-first-uid", "1700000000"};
  std::optional<daemon> daemon_;
  std::string parent_;
};

TEST_F(jail_e2e, each_vmm_is_a_user_of_its_own_without_privileges) {
  const auto made = daemon_->api().post("/v1/sandboxes", {{"snapshot_tag", "base"}});
  ASSERT_TRUE(made) << made.error().message();
  const auto first = status_of(parent_);
  const auto second = status_of(made->at(0).at("id"));
  EXPECT_THAT(first, HasSubstr("\nUid:\t17000000"));
  EXPECT_THAT(second, HasSubstr("\nUid:\t17000000"));
  const auto ids_in = [](const std::string& text) { return text.substr(text.find("\nUid:"), 50); };
  EXPECT_NE(ids_in(first), ids_in(second));
  for (const auto& status : {first, second}) {
    EXPECT_THAT(status, HasSubstr("\nGroups:\t \n"));
    EXPECT_THAT(status, HasSubstr("\nCapEff:\t0000000000000000\n"));
    EXPECT_THAT(status, HasSubstr("\nCapPrm:\t0000000000000000\n"));
    EXPECT_THAT(status, HasSubstr("\nNoNewPrivs:\t1\n"));
  }
}

TEST_F(jail_e2e, a_vmm_sees_its_own_files_and_no_others) {
  const std::filesystem::path root = proc_of(parent_) + "/root";
  struct stat inside {};
  struct stat outside {};
  ASSERT_EQ(::stat(root.c_str(), &inside), 0);
  ASSERT_EQ(::stat("/", &outside), 0);
  EXPECT_FALSE(inside.st_ino == outside.st_ino && inside.st_dev == outside.st_dev);
  const auto base = daemon_->root() / "snapshots" / "base";
  EXPECT_EQ(entries_of(root / base.relative_path()), std::vector<std::string>{"vmstate"}) << "its RAM is no file";
  EXPECT_EQ(entries_of(root / daemon_->root().relative_path() / "snapshots"), std::vector<std::string>{"base"});
  EXPECT_FALSE(std::filesystem::exists(root / "etc/passwd"));
  // The one place to write: nothing can be made there, and what is linked there goes when it is written.
  ASSERT_TRUE(daemon_->branch(parent_, {{"tag", "full"}, {"mode", "full"}}));
  const auto outbox = daemon_->root() / "run" / ("jail-" + parent_);
  struct stat folder {};
  ASSERT_EQ(::stat((root / outbox.relative_path()).c_str(), &folder), 0);
  EXPECT_EQ(folder.st_uid, 0U);
  EXPECT_EQ(folder.st_mode & 0777U, 0755U);
  EXPECT_TRUE(entries_of(outbox).empty());
  struct stat image {};
  ASSERT_EQ(::stat((daemon_->root() / "snapshots/full/memory.bin").c_str(), &image), 0);
  EXPECT_EQ(image.st_uid, 0U) << "taken back";
  EXPECT_EQ(image.st_mode & 0777U, 0444U);
  // Its sockets: it can put nothing else in their place.
  ASSERT_EQ(::stat((daemon_->root() / "run" / parent_ / "s").c_str(), &folder), 0);
  EXPECT_EQ(folder.st_uid, 0U);
}

TEST_F(jail_e2e, nothing_is_mounted_outside_and_nothing_is_left) {
  EXPECT_THAT(read_text_file("/proc/self/mountinfo").value(), Not(HasSubstr(daemon_->root().string())));
  EXPECT_THAT(read_text_file("/proc/" + std::to_string(daemon_->process().pid()) + "/mountinfo").value(),
              Not(HasSubstr(daemon_->root().string())));
  ASSERT_TRUE(daemon_->api().remove("/v1/sandboxes/" + parent_));
  EXPECT_TRUE(no_process_names(daemon_->root().string() + "/run"));
  daemon_->process().signal(SIGTERM);
  EXPECT_EQ(daemon_->process().wait_for_exit(patience), 0);
  EXPECT_EQ(entries_of(daemon_->root() / "snapshots"), std::vector<std::string>{"base"});
  EXPECT_FALSE(std::filesystem::exists(daemon_->root() / "jail"));
  EXPECT_EQ(entries_of(daemon_->root() / "snapshots" / "base"),
            (std::vector<std::string>{"manifest.json", "memory.bin", "vmstate"}))
      << "what was shown inside a jail is still there";
}

TEST_F(jail_e2e, vmms_end_with_a_killed_daemon) {
  daemon_->process().signal(SIGKILL);
  ASSERT_EQ(daemon_->process().wait_for_exit(patience), -SIGKILL);
  EXPECT_TRUE(no_process_names(daemon_->root().string())) << "neither VMM nor guard";
}

TEST_F(jail_e2e, vmms_that_a_daemon_and_its_guard_left_are_ended_by_the_next) {
  const auto guard = std::string("--guard-jails") + '\0' + (daemon_->root() / "jail").string();
  const auto guards = processes_naming(guard);
  ASSERT_EQ(guards.size(), 1U);
  ::kill(guards.front(), SIGKILL);
  ASSERT_TRUE(no_process_names(guard));
  const auto sockets = daemon_->root().string() + "/run";  // named by the command line of each VMM
  daemon_->process().signal(SIGKILL);
  ASSERT_EQ(daemon_->process().wait_for_exit(patience), -SIGKILL);
  ASSERT_FALSE(processes_naming(sockets).empty())
      << "a jailed VMM doesn't die with its parent: else this shows nothing";
  daemon next(coppice_vmm, jailed, daemon_->root());
  EXPECT_TRUE(next.up()) << next.process().output();
  EXPECT_TRUE(processes_naming(sockets).empty());
  EXPECT_TRUE(next.process().wait_for_output("which a daemon before has left"));
}

TEST_F(jail_e2e, a_kernel_that_the_vmms_user_cant_read_is_refused_with_what_to_do) {
  const auto kernel = daemon_->root() / "kernel.elf";
  std::filesystem::copy_file(journal_kernel, kernel);
  ASSERT_EQ(::chmod(kernel.c_str(), 0600), 0);
  const auto made = daemon_->api().post("/v1/snapshots", {{"tag", "secret"}, {"kernel", kernel}, {"memory_mib", 64}});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message(), HasSubstr("chmod o+r"));
  EXPECT_TRUE(daemon_->advances(parent_));
}

TEST(jailer_e2e, a_missing_jailer_ends_the_start_with_its_name) {
  daemon daemon(coppice_vmm, {"--jailer", "/no/such/jailer"});
  EXPECT_FALSE(daemon.up());
  EXPECT_EQ(daemon.process().wait_for_exit(patience), 1);
  EXPECT_THAT(daemon.process().output(), HasSubstr("/no/such/jailer"));
}

}  // namespace
}  // namespace coppice::e2e
