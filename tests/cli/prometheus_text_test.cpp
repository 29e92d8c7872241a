#include "cli/prometheus_text.hpp"

#include <gmock/gmock.h>

#include <cmath>

#include "metrics/metrics.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

TEST(prometheus_text, samples_are_added_up_by_name_and_labels) {
  const auto samples = metric_samples::parse(
      "# HELP a some help\n# TYPE a counter\n"
      "a{mode=\"live\",outcome=\"ready\"} 3\n"
      "a{mode=\"live\",outcome=\"failed\",} 1 1700000000\n"
      "a{mode=\"full\", outcome=\"ready\"} 4e2\n\n"
      "b +Inf\n"
      "c{text=\"a \\\"b\\\" \\\\ \\n}\"} 7");
  ASSERT_TRUE(samples.ok()) << samples.error().message();
  EXPECT_EQ(samples->sum("a"), 404);
  EXPECT_EQ(samples->sum("a", {{"mode", "live"}}), 4);
  EXPECT_EQ(samples->sum("a", {{"mode", "live"}, {"outcome", "ready"}}), 3);
  EXPECT_EQ(samples->sum("a", {{"other", ""}}), 0);
  EXPECT_TRUE(std::isinf(samples->sum("b")));
  EXPECT_EQ(samples->sum("c", {{"text", "a \"b\" \\ \n}"}}), 7);
  EXPECT_EQ(samples->sum("d"), 0);
}

TEST(prometheus_text, a_bad_line_is_named) {
  for (const char* bad :
       {"a", "a x", "{} 1", "a{b=\"c} 1", "a{b=c} 1", "a{b} 1", "a{=\"c\"} 1", "a{b=\"c\" 1", "<html>"}) {
    const auto samples = metric_samples::parse("ok 1\n" + std::string(bad) + "\n");
    ASSERT_FALSE(samples.ok()) << bad;
    EXPECT_EQ(samples.error().code, errc::corrupt);
    EXPECT_THAT(samples.error().message(), HasSubstr("line 2 "));
  }
}

TEST(prometheus_text, quantiles_are_interpolated_over_all_series) {
  const auto samples = metric_samples::parse(
      "h_bucket{mode=\"live\",le=\"0.001\"} 0\nh_bucket{mode=\"live\",le=\"0.002\"} 10\n"
      "h_bucket{mode=\"live\",le=\"+Inf\"} 10\n"
      "h_bucket{mode=\"full\",le=\"0.001\"} 0\nh_bucket{mode=\"full\",le=\"0.002\"} 0\n"
      "h_bucket{mode=\"full\",le=\"+Inf\"} 10\n"
      "none_bucket{le=\"1\"} 0\nnone_bucket{le=\"+Inf\"} 0\n");
  ASSERT_TRUE(samples.ok());
  EXPECT_DOUBLE_EQ(*samples->quantile("h", 0.5, {{"mode", "live"}}), 0.0015);
  EXPECT_DOUBLE_EQ(*samples->quantile("h", 0.25), 0.0015);
  EXPECT_DOUBLE_EQ(*samples->quantile("h", 0.99), 0.002) << "above the last bound: at least that";
  EXPECT_FALSE(samples->quantile("none", 0.5));
  EXPECT_FALSE(samples->quantile("absent", 0.5));
}

TEST(prometheus_text, what_the_daemon_writes_is_understood) {
  metrics registry;
  registry.pause_seconds(branch_mode::live, 0.0015);
  registry.set_written_bytes_total(4096);
  const auto samples = metric_samples::parse(registry.text());
  ASSERT_TRUE(samples.ok()) << samples.error().message();
  EXPECT_EQ(samples->sum("coppice_written_bytes_total"), 4096);
  EXPECT_NEAR(*samples->quantile("coppice_branch_pause_seconds", 0.5, {{"mode", "live"}}), 0.0015, 0.001);
}

}  // namespace
}  // namespace coppice
