#include "copy_engine/bounce_pool.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

constexpr std::size_t pool_pages = 1000;

class bounce_pool_test : public ::testing::Test {
 protected:
  std::size_t reserve_all(bounce_share& vm, std::size_t each = 10, std::size_t to_spare = 0) {
    std::size_t reserved = 0;
    while (pool.reserve(vm, each, to_spare)) reserved += each;
    return reserved;
  }

  bounce_pool pool = *bounce_pool::create(pool_pages * page_size);
  bounce_share first, second;
};

TEST_F(bounce_pool_test, a_vm_saves_ahead_into_half_of_the_pool_and_the_rest_is_for_captures) {
  EXPECT_EQ(reserve_all(first), pool_pages / 2);
  EXPECT_EQ(pool.available(), pool_pages / 2);
  EXPECT_EQ(pool.available_to(second), pool_pages / 2 * 4 / 5);
  EXPECT_EQ(pool.used_bytes(), pool_pages / 2 * page_size);
}

TEST_F(bounce_pool_test, of_two_vms_each_saves_ahead_into_less) {
  reserve_all(first);
  EXPECT_EQ(reserve_all(second), pool_pages / 4);
  EXPECT_EQ(pool.available(), pool_pages / 4);
}

TEST_F(bounce_pool_test, what_is_to_be_spared_stays_free) {
  EXPECT_EQ(reserve_all(first, 10, 200), 400U);
  EXPECT_FALSE(pool.reserve(second, 1, pool_pages));
}

TEST_F(bounce_pool_test, captures_count_against_what_is_saved_ahead) {
  std::vector<bounce_buffer*> captured;
  for (int i = 0; i < 100; ++i) captured.push_back(pool.acquire(first));
  EXPECT_EQ(reserve_all(first), 400U);
  EXPECT_EQ(pool.available(), 500U);
  for (bounce_buffer* each : captured) pool.release(each);
  EXPECT_EQ(reserve_all(first), 100U);
}

TEST_F(bounce_pool_test, a_vm_may_take_as_many_at_once_as_one_after_the_other) {
  for (int i = 0; i < 123; ++i) pool.acquire(second);
  const std::size_t at_once = pool.available_to(first);
  std::size_t taken = 0;
  for (; pool.available_to(first) > 0; ++taken) pool.acquire(first);
  EXPECT_EQ(taken, at_once);
  EXPECT_EQ(first.held(), 4 * pool.available() + 2);  // of the 877 that there were, four fifths, rounded up
}

TEST_F(bounce_pool_test, what_is_given_back_is_there_for_all) {
  const std::size_t reserved = reserve_all(first);
  pool.unreserve(first, reserved);
  EXPECT_EQ(first.held(), 0U);
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(pool.available_to(second), pool_pages * 4 / 5);
  EXPECT_EQ(reserve_all(second), reserved);
}

}  // namespace
}  // namespace coppice
