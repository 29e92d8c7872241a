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

TEST(report, a_target_with_too_few_measurements_is_shown_and_not_judged) {
  report made("branch", {});
  made.add({"256M", "p99_ratio", better::lower, {9}, judged_from(100, 12, "branches", at_most(4))});
  made.add({"1G", "p99_ratio", better::lower, {9}, judged_from(100, 100, "branches", at_most(4))});
  EXPECT_EQ(made.missed_targets(), 1U);
  EXPECT_EQ(made.targets_not_judged(), 1U);
  const auto json = made.to_json();
  EXPECT_EQ(json["targets_not_judged"], 1);
  EXPECT_TRUE(json["figures"][0]["target"]["met"].is_null());
  EXPECT_EQ(json["figures"][0]["target"]["not_judged"], "12 branches, 100 needed");
  EXPECT_EQ(json["figures"][1]["target"]["met"], false);
  std::ostringstream table;
  made.print(table);
  EXPECT_THAT(table.str(), HasSubstr("not judged: 12 branches, 100 needed"));
  EXPECT_THAT(table.str(), HasSubstr("1 target(s) missed, 1 not judged"));
}

TEST(report, a_note_stands_in_table_and_json) {
  report made("branch", {});
  made.add({"", "ratio", better::lower, {1.1}, at_most(1.3), "to the median of 12 bare calls"});
  EXPECT_EQ(made.to_json()["figures"][0]["note"], "to the median of 12 bare calls");
  std::ostringstream table;
  made.print(table);
  EXPECT_THAT(table.str(), HasSubstr("to the median of 12 bare calls"));
}

TEST(report, the_table_says_where_and_how_it_was_measured) {
  report made("branch", {{"branches", "3"}, {"vmm", ""}});
  made.set_environment({{"cpu", "A CPU"},
                        {"cores", 2},
                        {"kernel", "Linux 6.18"},
                        {"kvm_by", "hardware"},
                        {"load_average", 0.5},
                        {"cpu_steal_percent", 1.25},
                        {"root_file_system", "ext4"},
                        {"root_device", nullptr},
                        {"vmm", {{"name", "coppice-vmm"}, {"version", "0.1"}}}});
  std::ostringstream table;
  made.print(table);
  for (const char* wanted : {"A CPU, 2 CPUs", "load before 0.5", "stolen by the host 1.25 %",
                             "Linux 6.18; KVM: hardware", "coppice-vmm 0.1", "ext4", "--branches 3"})
    EXPECT_THAT(table.str(), HasSubstr(wanted));
  EXPECT_THAT(table.str(), Not(HasSubstr("--vmm")));
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

TEST(report, a_run_that_measured_nothing_met_no_target) {
  const report made("branch", {});
  std::ostringstream table;
  made.print(table);
  EXPECT_THAT(table.str(), HasSubstr("no target was judged"));
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
