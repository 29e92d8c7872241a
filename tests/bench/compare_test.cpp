#include "bench/compare.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/report.hpp"

namespace coppice::bench {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

nlohmann::json run_of(std::vector<figure> figures, const std::string& benchmark = "copy") {
  report made(benchmark, {{"rounds", "5"}});
  made.set_environment({{"cpu", "one"}, {"commit", "a"}});
  for (auto& each : figures) made.add(std::move(each));
  return made.to_json();
}

verdict verdict_of(figure before, figure after) {
  const auto all = compare(run_of({std::move(before)}), run_of({std::move(after)}));
  EXPECT_TRUE(all);
  EXPECT_EQ(all->size(), 1U);
  return all->front().what;
}

figure times(std::vector<double> values) {
  return {"", "time_us", better::lower, std::move(values)};
}
figure speeds(std::vector<double> values) {
  return {"", "speed", better::higher, std::move(values)};
}

TEST(compare, a_run_is_the_same_as_itself) {
  EXPECT_EQ(verdict_of(times({1, 2, 3}), times({1, 2, 3})), verdict::same);
}

TEST(compare, less_time_is_better_and_less_speed_is_worse) {
  EXPECT_EQ(verdict_of(times({100, 101, 102}), times({50, 51, 52})), verdict::better);
  EXPECT_EQ(verdict_of(times({50, 51, 52}), times({100, 101, 102})), verdict::worse);
  EXPECT_EQ(verdict_of(speeds({100, 101, 102}), speeds({50, 51, 52})), verdict::worse);
  EXPECT_EQ(verdict_of(speeds({50, 51, 52}), speeds({100, 101, 102})), verdict::better);
}

TEST(compare, what_is_within_the_noise_is_the_same) {
  EXPECT_EQ(verdict_of(times({50, 100, 150}), times({60, 110, 170})), verdict::same);
}

TEST(compare, a_small_change_is_the_same_however_little_noise_there_is) {
  EXPECT_EQ(verdict_of(times({100, 100, 100}), times({104, 104, 104})), verdict::same);
  EXPECT_EQ(verdict_of(times({100, 100, 100}), times({106, 106, 106})), verdict::worse);
}

TEST(compare, single_values_need_a_larger_change) {
  EXPECT_EQ(verdict_of(times({100}), times({115})), verdict::same);
  EXPECT_EQ(verdict_of(times({100}), times({125})), verdict::worse);
}

TEST(compare, anything_is_worse_than_none) {
  EXPECT_EQ(verdict_of(times({0}), times({1})), verdict::worse);
  EXPECT_EQ(verdict_of(times({1}), times({0})), verdict::better);
}

TEST(compare, what_lies_below_zero_is_compared_by_direction) {
  EXPECT_EQ(verdict_of(times({-100}), times({-200})), verdict::better);
  EXPECT_EQ(verdict_of(times({-100}), times({200})), verdict::worse);
}

TEST(compare, a_baseline_is_never_better_or_worse) {
  figure before = times({1, 1, 1}), after = times({9, 9, 9});
  before.direction = after.direction = better::lower_baseline;
  EXPECT_EQ(verdict_of(before, after), verdict::same);
}

TEST(compare, figures_are_matched_by_cell_and_name) {
  const auto all = compare(run_of({{"1G", "a", better::lower, {1}}, {"2G", "a", better::lower, {5}}}),
                           run_of({{"2G", "a", better::lower, {5}}, {"4G", "a", better::lower, {9}}}));
  ASSERT_TRUE(all);
  std::vector<verdict> verdicts;
  for (const auto& each : *all) verdicts.push_back(each.what);
  EXPECT_THAT(verdicts, ElementsAre(verdict::only_in_one, verdict::same, verdict::only_in_one));
}

TEST(compare, runs_of_different_benchmarks_are_refused) {
  const auto all = compare(run_of({}, "copy"), run_of({}, "fault"));
  ASSERT_FALSE(all);
  EXPECT_EQ(all.error().code, errc::invalid_argument);
}

TEST(compare, what_is_no_report_is_refused) {
  for (const nlohmann::json& broken :
       {nlohmann::json::object(), nlohmann::json::array(), nlohmann::json(3),
        nlohmann::json{{"benchmark", "copy"}, {"figures", {1, 2}}},
        nlohmann::json{{"benchmark", "copy"}, {"figures", {{{"cell", ""}, {"name", "a"}}}}}}) {
    const auto all = compare(broken, run_of({}));
    ASSERT_FALSE(all) << broken.dump();
    EXPECT_EQ(all.error().code, errc::corrupt);
  }
}

TEST(compare, differences_name_what_makes_runs_incomparable) {
  nlohmann::json a = run_of({}), b = run_of({});
  b["environment"]["commit"] = "b";
  EXPECT_THAT(differences(a, b), IsEmpty());
  b["environment"]["cpu"] = "other";
  b["settings"]["rounds"] = "9";
  EXPECT_THAT(differences(a, b), ElementsAre(R"(cpu: "one" and "other")", R"(rounds: "5" and "9")"));
}

}  // namespace
}  // namespace coppice::bench
