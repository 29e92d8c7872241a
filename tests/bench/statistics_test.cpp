#include "bench/statistics.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace coppice::bench {
namespace {

std::vector<double> one_to(int last) {
  std::vector<double> values(static_cast<std::size_t>(last));
  std::iota(values.begin(), values.end(), 1.0);
  return values;
}

TEST(statistics, nothing_measured_is_all_zero) {
  const auto all = summarize({});
  EXPECT_EQ(all.count, 0U);
  EXPECT_EQ(all.median, 0);
  EXPECT_EQ(all.worst, 0);
}

TEST(statistics, one_value_is_every_quantile) {
  const auto all = summarize({7});
  for (const double each : {all.best, all.p25, all.median, all.p75, all.p90, all.p99, all.worst}) EXPECT_EQ(each, 7);
}

TEST(statistics, quantiles_are_values_that_were_measured) {
  const auto all = summarize(one_to(100));
  EXPECT_EQ(all.p25, 25);
  EXPECT_EQ(all.p75, 75);
  EXPECT_EQ(all.p90, 90);
  EXPECT_EQ(all.p99, 99);
  EXPECT_EQ(all.worst, 100);
}

TEST(statistics, the_p99_of_few_values_is_the_worst) {
  EXPECT_EQ(summarize(one_to(20)).p99, 20);
}

TEST(statistics, the_median_of_an_even_count_lies_between_the_middle_two) {
  EXPECT_EQ(summarize({4, 1, 3, 2}).median, 2.5);
  EXPECT_EQ(summarize({3, 1, 2}).median, 2);
}

TEST(statistics, where_more_is_better_the_tail_is_the_low_end) {
  const auto all = summarize(one_to(100), false);
  EXPECT_EQ(all.best, 100);
  EXPECT_EQ(all.p90, 11);
  EXPECT_EQ(all.worst, 1);
  EXPECT_EQ(all.median, 50.5);
}

TEST(statistics, of_a_single_value_the_noise_is_unknown) {
  EXPECT_LT(median_noise(summarize({5})), 0);
}

TEST(statistics, equal_values_have_no_noise) {
  EXPECT_EQ(median_noise(summarize({5, 5, 5, 5})), 0);
}

TEST(statistics, the_noise_shrinks_with_the_root_of_the_count) {
  std::vector<double> few = {90, 95, 100, 105, 110};
  std::vector<double> many;
  for (int i = 0; i < 16; ++i) many.insert(many.end(), few.begin(), few.end());
  EXPECT_NEAR(median_noise(summarize(many)) * 4, median_noise(summarize(few)), 0.01);
}

}  // namespace
}  // namespace coppice::bench
