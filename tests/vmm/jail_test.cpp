#include "vmm/jail.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;

struct stat look_at(const std::filesystem::path& path) {
  struct stat found {};
  EXPECT_EQ(::stat(path.c_str(), &found), 0) << path;
  return found;
}

class jail_test : public testing::Test {
 protected:
  static constexpr uid_t first = 1'700'000'000;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "jails need root";
    std::filesystem::create_directories(dir_.path() / "vm" / "s");
    ASSERT_TRUE(write_text_file(kernel_, "kernel"));
    auto made = jailer::create({"/bin/true", "/bin/cat", first, dir_.path() / "jails", {dir_.path()}});
    ASSERT_TRUE(made) << made.error().message();
    jailer_ = *std::move(made);
  }
  start_vmm_request request() const {
    start_vmm_request asked;
    asked.api_socket = dir_.path() / "vm" / "s" / "api";
    asked.readable = {kernel_};
    return asked;
  }
  std::unique_ptr<jail> made(const std::string& id) {
    auto jailed = jailer_->make(id, request());
    EXPECT_TRUE(jailed) << jailed.error().message();
    return jailed ? *std::move(jailed) : nullptr;
  }

  temp_dir dir_;
  const std::filesystem::path kernel_ = dir_.path() / "kernel";
  std::unique_ptr<jailer> jailer_;
};

TEST_F(jail_test, the_command_is_the_jailers_with_the_vmms_arguments_behind_it) {
  const auto jailed = made("a");
  const auto spec = jailed->inside({"/bin/cat", {"--api-sock", "x"}, "log"});
  EXPECT_EQ(spec.binary, "/bin/true");
  EXPECT_TRUE(spec.keep_privileges);
  const auto user = std::to_string(first);
  EXPECT_THAT(spec.arguments,
              ElementsAreArray({"--id", "a", "--exec-file", std::filesystem::canonical("/bin/cat").c_str(), "--uid",
                                user.c_str(), "--gid", user.c_str(), "--chroot-base-dir",
                                (dir_.path() / "jails").c_str(), "--", "--api-sock", "x"}));
}

TEST_F(jail_test, all_is_shown_at_its_own_path_and_gone_with_the_jail) {
  auto jailed = made("a");
  const auto root = dir_.path() / "jails" / "cat" / "a" / "root";
  std::vector<std::pair<std::filesystem::path, bool>> shown;
  for (const auto& each : jailed->inside({}).mounts) {
    EXPECT_EQ(each.target, root / each.source.relative_path());
    EXPECT_TRUE(std::filesystem::exists(each.target));
    shown.emplace_back(each.source, each.writable);
  }
  EXPECT_THAT(
      shown, testing::UnorderedElementsAre(testing::Pair(kernel_, false), testing::Pair(dir_.path() / "vm" / "s", true),
                                           testing::Pair(dir_.path() / "jail-a", true)));
  jailed.reset();
  EXPECT_FALSE(std::filesystem::exists(root));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "jail-a"));
  EXPECT_EQ(read_text_file(kernel_).value(), "kernel");
}

TEST_F(jail_test, no_two_jails_have_one_user_and_a_number_is_used_again) {
  const auto user_of = [](const jail& one) { return one.inside({}).arguments.at(5); };
  auto a = made("a");
  const auto b = made("b");
  EXPECT_EQ(user_of(*a), std::to_string(first));
  EXPECT_EQ(user_of(*b), std::to_string(first + 1));
  a.reset();
  const auto c = made("c");
  EXPECT_EQ(user_of(*c), std::to_string(first));
}

TEST_F(jail_test, a_file_to_write_is_the_vmms_until_the_grant_is_gone) {
  const auto jailed = made("a");
  const auto file = dir_.path() / "staged";
  auto grant = jailed->let_write(file);
  ASSERT_TRUE(grant) << grant.error().message();
  EXPECT_EQ(grant->path.parent_path(), dir_.path() / "jail-a");
  EXPECT_EQ(look_at(grant->path).st_ino, look_at(file).st_ino);
  EXPECT_EQ(look_at(file).st_uid, first);
  EXPECT_EQ(look_at(grant->path.parent_path()).st_uid, 0U) << "nothing else can be put in its place";
  const auto path = grant->path;
  grant->hold.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(look_at(file).st_uid, 0U);
}

TEST_F(jail_test, a_link_is_not_followed_to_the_file_to_write) {
  const auto jailed = made("a");
  std::filesystem::create_symlink(kernel_, dir_.path() / "staged");
  EXPECT_FALSE(jailed->let_write(dir_.path() / "staged"));
  EXPECT_EQ(look_at(kernel_).st_uid, 0U);
}

TEST_F(jail_test, a_file_on_another_file_system_cant_be_granted) {
  const auto jailed = made("a");
  const auto elsewhere = jailed->let_write("/proc/self/staged");
  ASSERT_FALSE(elsewhere);
  EXPECT_THAT(elsewhere.error().message(), HasSubstr("file system"));
}

TEST_F(jail_test, the_folder_of_the_sockets_is_the_vmms_until_it_is_locked) {
  const auto jailed = made("a");
  EXPECT_EQ(look_at(dir_.path() / "vm" / "s").st_uid, first);
  ASSERT_TRUE(jailed->lock_sockets());
  EXPECT_EQ(look_at(dir_.path() / "vm" / "s").st_uid, 0U);
}

TEST_F(jail_test, a_file_that_others_cant_read_is_refused_and_nothing_is_left) {
  ASSERT_EQ(::chmod(kernel_.c_str(), 0640), 0);
  const auto jailed = jailer_->make("a", request());
  ASSERT_FALSE(jailed);
  EXPECT_EQ(jailed.error().code, errc::invalid_argument);
  EXPECT_THAT(jailed.error().message(), HasSubstr("chmod o+r"));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "jails" / "cat" / "a"));
}

TEST(jailer_test, what_is_no_jailer_is_refused_by_its_name) {
  const temp_dir dir;
  EXPECT_EQ(jailer::check(dir.path() / "none").error().code, errc::not_found);
  ASSERT_TRUE(write_text_file(dir.path() / "text", "no program"));
  const auto text = jailer::check(dir.path() / "text");
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, errc::invalid_argument);
  EXPECT_THAT(text.error().message(), HasSubstr((dir.path() / "text").string()));
}

}  // namespace
}  // namespace coppice
