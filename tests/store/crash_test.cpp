// What a store finds after its process was killed between any two operations on disk.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/store/store_fixture.hpp"

namespace coppice {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Runs `work` on a store at `root` in a child that kills itself at `step`. False if it came to another end.
bool killed_at(const std::filesystem::path& root, store_step step, const std::function<void(snapshot_store&)>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    store_seams seams;
    seams.at_step = [step](store_step reached) {
      if (reached == step) ::kill(::getpid(), SIGKILL);
      return result<void>();
    };
    auto store = open_at(root, seams);
    if (store) work(**store);
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

class crash : public testing::TestWithParam<store_step> {
 protected:
  void SetUp() override {
    auto store = open_at(folder_.path());
    ASSERT_TRUE(publish_new(**store, "before").ok());
  }
  temp_dir folder_;
};

class crash_in_publish : public crash {};
class crash_in_remove : public crash {};

TEST_P(crash_in_publish, only_complete_snapshots_are_listed) {
  ASSERT_TRUE(killed_at(folder_.path(), GetParam(), [](snapshot_store& store) { (void)publish_new(store, "s"); }));
  auto store = open_at(folder_.path());
  ASSERT_TRUE(store.ok()) << store.error().message();
  EXPECT_THAT((*store)->unreadable_at_open(), IsEmpty());
  EXPECT_TRUE((*store)->verify("before")->ok());
  if (GetParam() < store_step::renamed) {
    EXPECT_THAT(tags_of(**store), ElementsAre("before"));
    EXPECT_THAT((*store)->removed_at_open(), testing::Contains(testing::HasSubstr(".staging-s")));
    EXPECT_TRUE(publish_new(**store, "s").ok()) << "the tag is free again";
  } else {
    EXPECT_THAT(tags_of(**store), ElementsAre("before", "s"));
  }
  EXPECT_TRUE((*store)->verify("s")->ok());
  EXPECT_THAT(names_in(folder_.path() / "snapshots"), ElementsAre("before", "s"));
}

TEST_P(crash_in_publish, a_step_that_fails_fails_the_branch_and_nothing_else) {
  bool failing = true;
  store_seams seams;
  seams.at_step = [&](store_step step) -> result<void> {
    if (failing && step == GetParam()) return error{errc::io, EIO, "injected"};
    return {};
  };
  auto store = open_at(folder_.path(), seams);
  const auto published = publish_new(**store, "s");
  ASSERT_FALSE(published.ok());
  EXPECT_EQ(published.error().code, errc::io);
  EXPECT_THAT(tags_of(**store), ElementsAre("before"));
  EXPECT_THAT(names_in(folder_.path() / "snapshots"), ElementsAre("before"));
  EXPECT_EQ((*store)->usage().reserved_bytes, 0U);
  failing = false;
  EXPECT_TRUE(publish_new(**store, "s").ok());
  store->reset();
  EXPECT_THAT((*open_at(folder_.path()))->removed_at_open(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(each_step, crash_in_publish,
                         testing::Values(store_step::staging_made, store_step::image_made, store_step::publish_begun,
                                         store_step::vmstate_copied, store_step::data_synced,
                                         store_step::manifest_written, store_step::staging_synced, store_step::renamed,
                                         store_step::published));

TEST_P(crash_in_remove, the_snapshot_is_gone_with_all_its_parts) {
  ASSERT_TRUE(killed_at(folder_.path(), GetParam(), [](snapshot_store& store) {
    (void)publish_new(store, "s");
    (void)store.remove("s");
  }));
  auto store = open_at(folder_.path());
  ASSERT_TRUE(store.ok());
  EXPECT_THAT(tags_of(**store), ElementsAre("before"));
  EXPECT_THAT((*store)->unreadable_at_open(), IsEmpty());
  EXPECT_THAT(names_in(folder_.path() / "snapshots"), ElementsAre("before"));
}

INSTANTIATE_TEST_SUITE_P(each_step, crash_in_remove, testing::Values(store_step::unlisted, store_step::removed));

}  // namespace
}  // namespace coppice
