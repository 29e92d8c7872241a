#include "vmm/memory_cgroup.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "tests/support/own_cgroup.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/memory_image.hpp"
#include "vmm/process.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

TEST(memory_cgroups, a_folder_of_another_file_system_is_refused_by_name) {
  const temp_dir dir;
  const auto opened = memory_cgroups::open(dir.path());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, errc::invalid_argument);
  EXPECT_THAT(opened.error().message(), HasSubstr(dir.path().string()));
}

TEST(memory_cgroups, without_the_memory_controller_it_says_how_to_get_it) {
  const own_cgroup own;
  if (own.path().empty() || own.has_memory()) GTEST_SKIP() << "no cgroup v2 without the memory controller here";
  const auto opened = memory_cgroups::open(own.path());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, errc::unsupported);
  EXPECT_THAT(opened.error().message(), HasSubstr("Delegate=memory"));
}

class memory_cgroup_test : public testing::Test {
 protected:
  void SetUp() override {
    if (!own_.has_memory()) GTEST_SKIP() << "no cgroup v2 with the memory controller here";
    auto opened = memory_cgroups::open(own_.path());
    ASSERT_TRUE(opened) << opened.error().message();
    groups_ = *std::move(opened);
  }
  std::shared_ptr<const memory_cgroup> create(std::uint64_t limit) {
    auto made = groups_->create("a", limit);
    EXPECT_TRUE(made) << made.error().message();
    return made ? *std::move(made) : nullptr;
  }
  // Runs a process inside that fills `bytes` of its memory.
  exit_status fill(const memory_cgroup& group, std::uint64_t bytes) {
    process_spec spec{VMM_TEST_CHILD, {"fill", std::to_string(bytes)}, dir_.path() / "log"};
    spec.cgroup_procs = group.procs_fd();
    auto child = spawn_process(spec);
    EXPECT_TRUE(child) << child.error().message();
    const auto ended = child->wait(60s);
    EXPECT_TRUE(ended && *ended);
    return **ended;
  }
  std::uint64_t current() { return std::stoull(read_text_file(own_.path() / "vm-a" / "memory.current").value()); }

  temp_dir dir_;
  own_cgroup own_;
  std::shared_ptr<const memory_cgroups> groups_;
};

TEST_F(memory_cgroup_test, a_process_inside_is_killed_when_it_needs_more) {
  const auto group = create(128 * mib);
  EXPECT_EQ(fill(*group, 4 * mib).code, 0);
  EXPECT_FALSE(group->has_killed());
  EXPECT_EQ(fill(*group, 512 * mib).signal, SIGKILL);
  EXPECT_TRUE(group->has_killed());
}

TEST_F(memory_cgroup_test, is_removed_with_its_object_and_one_left_by_a_crash_at_the_next_start) {
  auto group = create(64 * mib);
  EXPECT_TRUE(std::filesystem::exists(own_.path() / "vm-a"));
  group.reset();
  EXPECT_FALSE(std::filesystem::exists(own_.path() / "vm-a"));
  ASSERT_TRUE(std::filesystem::create_directory(own_.path() / "vm-left"));
  EXPECT_TRUE(memory_cgroups::open(own_.path()));
  EXPECT_FALSE(std::filesystem::exists(own_.path() / "vm-left"));
}

TEST_F(memory_cgroup_test, ram_that_is_loaded_inside_is_right_and_counts_for_the_group) {
  auto memory = guest_memory::create("test", 32 * mib);
  ASSERT_TRUE(memory);
  std::vector<std::byte> content(memory->size());
  for (std::size_t i = 0; i < content.size() / 2; ++i) content[i] = static_cast<std::byte>(i % 251 + 1);
  const auto image = dir_.path() / "image";
  ASSERT_TRUE(write_all_at(open_file(image, O_RDWR | O_CREAT)->get(), content, 0));
  const auto group = create(64 * mib);
  const auto loaded = load_image_inside(*group, image, *memory, dir_.path() / "log");
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(std::equal(content.begin(), content.end(), memory->data()));
  EXPECT_GE(current(), content.size() / 2);
}

TEST_F(memory_cgroup_test, an_image_over_the_limit_is_an_error_that_names_it) {
  auto memory = guest_memory::create("test", 64 * mib);
  ASSERT_TRUE(memory);
  const auto image = dir_.path() / "image";
  ASSERT_TRUE(
      write_all_at(open_file(image, O_RDWR | O_CREAT)->get(), std::vector<std::byte>(memory->size(), std::byte{1}), 0));
  const auto group = create(16 * mib);
  const auto loaded = load_image_inside(*group, image, *memory, dir_.path() / "log");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, errc::conflict);
  EXPECT_THAT(loaded.error().message(), HasSubstr("limit is too low"));
}

}  // namespace
}  // namespace coppice
