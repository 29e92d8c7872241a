// Writes that fail: they fail what they belong to, and nothing else.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/store/store_fixture.hpp"

namespace coppice {
namespace {

using testing::ElementsAre;

class disk_full : public testing::Test {
 protected:
  void SetUp() override {
    if (!disk_.mounted()) GTEST_SKIP() << "can't mount a small tmpfs here (not root)";
    auto opened = open_at(disk_.path() / "root");
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    store_ = std::move(*opened);
    ASSERT_TRUE(publish_new(*store_, "before").ok());
  }
  void TearDown() override { store_.reset(); }  // before the disk goes

  // Uses up all but `left` bytes of the disk.
  void fill_disk(std::uint64_t left) {
    const auto free = std::filesystem::space(disk_.path()).available;
    ASSERT_GT(free, left);
    const std::string text(free - left, 'f');
    ASSERT_TRUE(write_text_file(disk_.path() / "filler", text).ok());
  }

  small_disk disk_{"size=32m"};
  std::unique_ptr<snapshot_store> store_;
};

TEST_F(disk_full, a_full_disk_fails_the_publish_only) {
  auto staged = store_->reserve("s", image_bytes);
  ASSERT_TRUE(staged.ok()) << staged.error().message();
  fill(**staged);
  fill_disk(0);
  const auto published = store_->publish(std::move(*staged), {});
  ASSERT_FALSE(published.ok());
  EXPECT_EQ(published.error().code, errc::no_space);
  EXPECT_THAT(published.error().message(), testing::HasSubstr(".staging-s"));
  EXPECT_THAT(names_in(disk_.path() / "root" / "snapshots"), ElementsAre("before"));
  EXPECT_TRUE(store_->verify("before")->ok());
  std::filesystem::remove(disk_.path() / "filler");
  EXPECT_TRUE(publish_new(*store_, "s").ok());
}

TEST_F(disk_full, a_manifest_that_does_not_fit_fails_the_publish) {
  auto staged = store_->reserve("s", image_bytes);
  fill(**staged);
  fill_disk(page_size);  // enough for the vmstate
  EXPECT_EQ(store_->publish(std::move(*staged), {}).error().code, errc::no_space);
  EXPECT_THAT(names_in(disk_.path() / "root" / "snapshots"), ElementsAre("before"));
}

TEST_F(disk_full, reservations_of_several_snapshots_add_up) {
  const auto first = store_->reserve("first", 12 * mib);
  ASSERT_TRUE(first.ok());
  const auto second = store_->reserve("second", 12 * mib);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, errc::no_space);
  EXPECT_THAT(second.error().message(), testing::HasSubstr("needs 12.0 MiB"));
  EXPECT_TRUE(store_->reserve("small", 1 * mib).ok());
}

TEST_F(disk_full, a_root_without_room_for_its_folders_is_no_space) {
  const small_disk no_files("size=1m,nr_inodes=2");
  ASSERT_TRUE(no_files.mounted());
  const auto opened = open_at(no_files.path() / "a" / "b");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, errc::no_space);
}

TEST_F(disk_full, a_full_disk_fails_the_composing_of_a_diff) {
  const temp_dir folder;
  auto base = open_file(folder.path() / "base", O_RDWR | O_CREAT);
  auto diff = open_file(folder.path() / "diff", O_RDWR | O_CREAT);
  auto output = open_file(disk_.path() / "output", O_RDWR | O_CREAT);
  const std::string text(image_bytes, 'b');
  ASSERT_TRUE(write_all_at(base->get(), std::as_bytes(std::span(text)), 0).ok());
  ASSERT_EQ(::ftruncate(diff->get(), static_cast<off_t>(image_bytes)), 0);
  ASSERT_EQ(::ftruncate(output->get(), static_cast<off_t>(image_bytes)), 0);
  fill_disk(1 * mib);
  const auto composed = compose_diff_image(base->get(), diff->get(), output->get(), image_bytes);
  ASSERT_FALSE(composed.ok());
  EXPECT_EQ(composed.error().code, errc::no_space);
}

// A child whose files may not grow beyond `limit` bytes runs `work`; its exit status.
int with_file_size_limit(rlim_t limit, const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit bound{limit, limit};
    if (::setrlimit(RLIMIT_FSIZE, &bound) != 0) ::_exit(99);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

TEST(short_write, a_vmstate_cut_short_fails_the_publish_and_leaves_nothing) {
  const temp_dir folder;
  {
    auto store = open_at(folder.path());
    ASSERT_TRUE(publish_new(**store, "before").ok());
  }
  const int status = with_file_size_limit(RLIM_INFINITY, [&] {
    auto store = open_at(folder.path());
    auto staged = (*store)->reserve("s", image_bytes);
    fill(**staged);
    const std::string long_vmstate(2 * mib, 'v');
    if (!write_text_file((*staged)->vmstate_path(), long_vmstate)) return 1;
    const rlimit bound{1 * mib + 100, 1 * mib + 100};  // the copy ends within a write
    if (::setrlimit(RLIMIT_FSIZE, &bound) != 0) return 2;
    const auto published = (*store)->publish(std::move(*staged), {});
    if (published.ok() || published.error().code != errc::io || published.error().sys_errno != EFBIG) return 3;
    if (names_in(folder.path() / "snapshots") != std::vector<std::string>{"before"}) return 4;
    return (*store)->verify("before")->ok() ? 0 : 5;
  });
  EXPECT_EQ(status, 0);
}

TEST(short_write, an_image_cut_short_fails_the_composing) {
  const temp_dir folder;
  auto base = open_file(folder.path() / "base", O_RDWR | O_CREAT);
  auto diff = open_file(folder.path() / "diff", O_RDWR | O_CREAT);
  auto output = open_file(folder.path() / "output", O_RDWR | O_CREAT);
  const std::string text(image_bytes, 'b');
  ASSERT_TRUE(write_all_at(base->get(), std::as_bytes(std::span(text)), 0).ok());
  ASSERT_EQ(::ftruncate(diff->get(), static_cast<off_t>(image_bytes)), 0);
  ASSERT_EQ(::ftruncate(output->get(), static_cast<off_t>(image_bytes)), 0);
  const int status = with_file_size_limit(3 * mib + 100, [&] {
    const auto composed = compose_diff_image(base->get(), diff->get(), output->get(), image_bytes);
    return !composed.ok() && composed.error().code == errc::io && composed.error().sys_errno == EFBIG ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace coppice
