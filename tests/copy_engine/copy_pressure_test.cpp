// When a copy hurries: by the faults that capture, which the fault thread counts, and the blocks that are streamed.
#include "copy_engine/copy_pressure.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

using std::chrono::milliseconds;

class copy_pressure_test : public ::testing::Test {
 protected:
  void let_prearm_touch(std::size_t blocks) { pressure = copy_pressure(blocks, begin, milliseconds(20)); }
  bool is_high_after(std::uint64_t more_faults, milliseconds since_begin) {
    faults += more_faults;
    pressure.look_at_faults(faults, begin + since_begin);
    return pressure.is_high();
  }

  const engine_clock::time_point begin = engine_clock::time_point() + std::chrono::hours(12);
  copy_pressure pressure{0, begin, milliseconds(0)};
  std::uint64_t faults = 0;
};

TEST_F(copy_pressure_test, hurries_for_faults_in_a_large_hot_set_at_once) {
  let_prearm_touch(256);
  EXPECT_FALSE(is_high_after(0, milliseconds(0)));
  EXPECT_TRUE(is_high_after(1, milliseconds(0)));
}

TEST_F(copy_pressure_test, leaves_a_small_hot_set_the_time_to_be_copied) {
  let_prearm_touch(32);
  EXPECT_FALSE(is_high_after(1000, milliseconds(19)));
  EXPECT_FALSE(is_high_after(64, milliseconds(20)));  // those before don't count
  EXPECT_TRUE(is_high_after(1, milliseconds(20)));
}

TEST_F(copy_pressure_test, hurries_no_more_when_faults_are_fewer_than_blocks) {
  let_prearm_touch(256);
  ASSERT_TRUE(is_high_after(1000, milliseconds(1)));
  for (int block = 0; block < 63; ++block) pressure.block_streamed();
  EXPECT_TRUE(pressure.is_high());
  pressure.block_streamed();
  EXPECT_FALSE(pressure.is_high());
  EXPECT_TRUE(is_high_after(1, milliseconds(2)));
}

}  // namespace
}  // namespace coppice
