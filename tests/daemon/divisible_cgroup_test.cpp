#include "daemon/divisible_cgroup.hpp"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/support/own_cgroup.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

class divisible_cgroup_test : public ::testing::Test {
 protected:
  // What a process with these lines in /proc/self/cgroup would be told.
  result<std::filesystem::path> of(const std::string& lines, const std::filesystem::path& mount) {
    const auto membership = folder_.path() / "membership";
    std::ofstream(membership) << lines;
    return divisible_cgroup(membership, mount);
  }
  void expect_none(const result<std::filesystem::path>& found, const std::string& message) {
    ASSERT_FALSE(found.ok());
    EXPECT_EQ(found.error().code, errc::unsupported);
    EXPECT_THAT(found.error().message(), HasSubstr(message));
  }
  temp_dir folder_;
};

TEST_F(divisible_cgroup_test, without_version_2_or_its_memory_controller_there_is_none) {
  expect_none(divisible_cgroup(folder_.path() / "absent"), "no cgroup v2");
  expect_none(of("4:memory:/system\n1:name=systemd:/\n", folder_.path()), "no cgroup v2");
  expect_none(of("4:memory:/\n0::/\n", folder_.path()), "no folder of a cgroup v2");
}

TEST_F(divisible_cgroup_test, a_group_with_the_memory_controller_is_found) {
  const own_cgroup made;
  if (!made.has_memory()) GTEST_SKIP() << "no cgroup v2 with the memory controller here";
  const auto found = of("0::/" + made.path().filename().string() + "\n", made.path().parent_path());
  ASSERT_TRUE(found.ok()) << found.error().message();
  EXPECT_EQ(*found, made.path());
}

}  // namespace
}  // namespace coppice
