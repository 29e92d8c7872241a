#include "copy_engine/rate_limit.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const rate_limit::clock::time_point noon = rate_limit::clock::time_point() + std::chrono::hours(12);

TEST(rate_limit_test, without_a_limit_nothing_waits) {
  rate_limit none(0);
  none.spend(1'000'000'000'000, noon);
  EXPECT_EQ(none.wait_at(noon).count(), 0);
}

TEST(rate_limit_test, what_was_spent_is_waited_for) {
  rate_limit limit(1'000'000);
  EXPECT_EQ(limit.wait_at(noon).count(), 0);
  limit.spend(500'000, noon);
  EXPECT_EQ(limit.wait_at(noon), milliseconds(495)) << "500 ms less the 5 that were unused before";
  EXPECT_EQ(limit.wait_at(noon + milliseconds(495)).count(), 0);
}

TEST(rate_limit_test, time_that_went_unused_is_no_credit_for_a_burst) {
  rate_limit limit(1'000'000);
  limit.spend(1, noon);
  limit.spend(1'000'000, noon + seconds(100));
  EXPECT_GE(limit.wait_at(noon + seconds(100)), milliseconds(990));
}

TEST(rate_limit_test, many_small_pieces_wait_as_long_as_a_large_one) {
  rate_limit limit(1'000'000);
  auto now = noon;
  for (int i = 0; i < 100; ++i) {
    now += limit.wait_at(now);
    limit.spend(10'000, now);
  }
  EXPECT_GE(now - noon, milliseconds(980));
  EXPECT_LE(now - noon, milliseconds(1000));
}

TEST(rate_limit_test, a_new_limit_counts_for_what_is_still_waited_for) {
  rate_limit limit(1'000'000);
  limit.spend(500'000, noon);
  limit.set(2'000'000, noon);
  EXPECT_EQ(limit.wait_at(noon), std::chrono::microseconds(247'500)) << "half of 495 ms";
  limit.set(0, noon);
  EXPECT_EQ(limit.wait_at(noon).count(), 0);
  limit.spend(1'000'000, noon);
  limit.set(1'000'000, noon);
  EXPECT_EQ(limit.wait_at(noon).count(), 0) << "what was spent without a limit costs nothing later";
  limit.spend(1'000'000, noon);
  EXPECT_GE(limit.wait_at(noon), milliseconds(990));
}

}  // namespace
}  // namespace coppice
