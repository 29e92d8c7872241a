// When a copy hurries: by the faults that capture, which the fault thread counts, and the blocks that are streamed.
#include "copy_engine/copy_job.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t blocks = 256;

class copy_job_test : public ::testing::Test {
 protected:
  copy_job_test() {
    auto memory = guest_memory::create("copy_job_test", blocks * block_pages * page_size);
    EXPECT_TRUE(memory);
    epoch = std::make_shared<memory_epoch>(
        std::make_shared<attached_vm>(), std::make_shared<guest_memory>(std::move(*memory)), [] {},
        [](const auto&, const error&) {});
    job = std::make_unique<copy_job>(epoch, unique_fd(), 0, [](const auto&) {});
  }
  void let_prearm_touch(std::size_t count) {
    for (std::size_t block = 0; block < count; ++block) epoch->touches_of_block[block] = 1;
    job->put_hot_blocks_first(milliseconds(20));
  }
  bool hurries_after(std::uint64_t faults, milliseconds since_begin) {
    epoch->capturing_faults += faults;
    job->look_at_faults(job->begin + since_begin);
    return job->must_hurry();
  }

  std::shared_ptr<memory_epoch> epoch;
  std::unique_ptr<copy_job> job;
};

TEST_F(copy_job_test, hurries_for_faults_in_a_large_hot_set_at_once) {
  let_prearm_touch(blocks);
  EXPECT_FALSE(hurries_after(0, milliseconds(0)));
  EXPECT_TRUE(hurries_after(1, milliseconds(0)));
}

TEST_F(copy_job_test, leaves_a_small_hot_set_the_time_to_be_copied) {
  let_prearm_touch(32);
  EXPECT_FALSE(hurries_after(1000, milliseconds(19)));
  EXPECT_FALSE(hurries_after(64, milliseconds(20)));  // those before don't count
  EXPECT_TRUE(hurries_after(1, milliseconds(20)));
}

TEST_F(copy_job_test, hurries_no_more_when_faults_are_fewer_than_blocks) {
  let_prearm_touch(blocks);
  ASSERT_TRUE(hurries_after(1000, milliseconds(1)));
  for (int block = 0; block < 63; ++block) job->block_streamed();
  EXPECT_TRUE(job->must_hurry());
  job->block_streamed();
  EXPECT_FALSE(job->must_hurry());
  EXPECT_TRUE(hurries_after(1, milliseconds(2)));
}

TEST_F(copy_job_test, does_not_hurry_when_all_is_streamed) {
  let_prearm_touch(blocks);
  ASSERT_TRUE(hurries_after(1000, milliseconds(1)));
  job->next_page = blocks * block_pages;
  EXPECT_FALSE(job->must_hurry());
}

}  // namespace
}  // namespace coppice
