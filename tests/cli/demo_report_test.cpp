#include "cli/demo_report.hpp"

#include <gmock/gmock.h>

#include <sstream>

namespace coppice {
namespace {

using ::testing::HasSubstr;

demo_results two_branches() {
  demo_results results;
  results.vmm = "coppice-vmm 0.1.0";
  branch_figures first;
  first.total_us = 1000;
  first.written_bytes = 1'000'000'000;
  first.copy_us = 500'000;
  branch_figures second;
  second.total_us = 3000;
  second.written_bytes = 1'000'000'000;
  second.copy_us = 1'000'000;
  results.branches = {first, second};
  return results;
}

TEST(demo_report, shows_median_and_worst) {
  const auto value = to_json(two_branches());
  EXPECT_EQ(value["total_us"]["median"], 2000.0);
  EXPECT_EQ(value["total_us"]["worst"], 3000.0);
  EXPECT_EQ(value["copy_bytes_per_second"]["median"], 1.5e9);
  EXPECT_EQ(value["copy_bytes_per_second"]["worst"], 1e9);  // of a speed, the slowest
  EXPECT_EQ(value["each_branch"].size(), 2u);
  EXPECT_EQ(value["ok"], true);
}

TEST(demo_report, the_table_tells_pause_stall_speed_and_bad_pages) {
  auto results = two_branches();
  results.bad_pages = 7;
  std::ostringstream out;
  print_results(out, results);
  EXPECT_THAT(out.str(), HasSubstr("whole pause"));
  EXPECT_THAT(out.str(), HasSubstr("2.00 ms    3.00 ms"));
  EXPECT_THAT(out.str(), HasSubstr("1.50 GB/s"));
  EXPECT_THAT(out.str(), HasSubstr("bad pages: 7\n"));
}

TEST(demo_report, figures_come_from_the_answer_of_a_branch) {
  const auto figures = figures_of({{"pause", {{"rearm_us", 5}, {"total_us", 9}}}, {"copy", {{"bulk_pages", 3}}}});
  EXPECT_EQ(figures.rearm_us, 5u);
  EXPECT_EQ(figures.total_us, 9u);
  EXPECT_EQ(figures.bulk_pages, 3u);
  EXPECT_EQ(figures_of(nlohmann::json::object()).total_us, 0u);
}

}  // namespace
}  // namespace coppice
