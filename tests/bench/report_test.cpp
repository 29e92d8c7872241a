#include "bench/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace coppice::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(report, a_figure_has_its_spread_its_values_and_its_target) {
  report made("branch", {{"branches", "3"}});
  made.set_environment({{"cores", 2}});
  made.add({"256M", "pause_us", better::lower, {3, 1, 2}, at_most(2)});
  const auto json = made.to_json();
  EXPECT_EQ(json["benchmark"], "branch");
  EXPECT_EQ(json["environment"]["cores"], 2);
  EXPECT_EQ(json["settings"]["branches"], "3");
  EXPECT_EQ(json["missed_targets"], 0);
  const auto& figure = json["figures"][0];
  EXPECT_EQ(figure["name"], "pause_us");
  EXPECT_EQ(figure["median"], 2.0);
  EXPECT_EQ(figure["worst"], 3.0);
  EXPECT_EQ(figure["values"].size(), 3U);
  EXPECT_EQ(figure["target"]["limit"], 2.0);
  EXPECT_EQ(figure["target"]["met"], true);
}

TEST(report, what_was_not_measured_is_left_out) {
  report made("copy", {});
  made.add({"", "stall_us", better::lower, {}, at_most(1)});
  EXPECT_TRUE(made.figures().empty());
  EXPECT_EQ(made.missed_targets(), 0U);
}

TEST(report, a_target_is_met_at_its_limit_and_missed_beyond_it) {
  report made("copy", {});
  made.add({"", "a", better::lower, {2}, at_most(2)});
  made.add({"", "b", better::lower, {2.01}, at_most(2)});
  made.add({"", "c", better::higher, {2}, at_least(2)});
  made.add({"", "d", better::higher, {1.99}, at_least(2)});
  EXPECT_EQ(made.missed_targets(), 2U);
}

TEST(report, what_must_never_happen_makes_a_run_wrong_and_slowness_does_not) {
  report made("test", {});
  made.add({"", "slow_us", better::lower, {3}, at_most(2)});
  made.add({"", "bad_pages", better::lower, {0}, never()});
  EXPECT_FALSE(made.is_wrong());
  made.add({"", "gaps", better::lower, {1}, never()});
  EXPECT_TRUE(made.is_wrong());
}

TEST(report, the_table_names_targets_and_whether_they_are_met) {
  report made("copy", {});
  made.add({"1G", "engine_to_memcpy_ratio", better::higher, {0.5, 0.6, 0.7}, at_least(0.8)});
  std::ostringstream table;
  made.print(table);
  EXPECT_THAT(table.str(), HasSubstr("engine_to_memcpy_ratio"));
  EXPECT_THAT(table.str(), HasSubstr(">= 0.8"));
  EXPECT_THAT(table.str(), HasSubstr("FAIL"));
  EXPECT_THAT(table.str(), HasSubstr("1 target(s) missed"));
}

TEST(report, without_cells_the_table_has_no_column_for_them) {
  report made("fleet", {});
  made.add({"", "pause_us", better::lower, {1}});
  std::ostringstream table;
  made.print(table);
  EXPECT_THAT(table.str(), Not(HasSubstr("CELL")));
}

TEST(report, numbers_are_short) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1234567), "1234567");
  EXPECT_EQ(short_number(12.34), "12.3");
  EXPECT_EQ(short_number(1.5), "1.5");
  EXPECT_EQ(short_number(0.012345), "0.0123");
  EXPECT_EQ(short_number(-26547.4), "-26547");
  EXPECT_EQ(short_number(100), "100");
}

}  // namespace
}  // namespace coppice::bench
