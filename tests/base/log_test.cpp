#include "base/log.hpp"

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <sstream>

namespace coppice {
namespace {

using testing::MatchesRegex;

// The default logger, into a string, for the length of a test.
class log_test : public testing::Test {
 protected:
  log_test() { spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink_)); }
  ~log_test() override { spdlog::set_default_logger(before_); }

  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  std::ostringstream text_;
  std::shared_ptr<spdlog::sinks::ostream_sink_st> sink_ = std::make_shared<spdlog::sinks::ostream_sink_st>(text_);
};

TEST_F(log_test, a_json_line_has_time_level_program_and_message) {
  sink_->set_formatter(make_json_formatter());
  spdlog::warn("no \"{}\"", "space");
  EXPECT_THAT(text_.str(), MatchesRegex("\\{\"time\":\"....-..-..T..:..:..\\.......Z\",\"level\":\"warning\","
                                        "\"program\":\"test\",\"message\":\"no ..space..\"\\}\n"));
}

TEST_F(log_test, fields_follow_the_message_of_their_line_and_of_no_other) {
  sink_->set_formatter(make_json_formatter());
  log_with(spdlog::level::info, "{} stays", std::array<log_field, 2>{{{"tag", "b\n1"}, {"pause_us", -3}}});
  spdlog::info("next");
  EXPECT_THAT(text_.str(), MatchesRegex(".*\"message\":\"\\{\\} stays\",\"tag\":\"b\\\\n1\",\"pause_us\":-3\\}\n"
                                        ".*\"message\":\"next\"\\}\n"));
}

TEST_F(log_test, a_human_line_leaves_the_fields_out) {
  sink_->set_pattern("%l %n: %v");
  log_with(spdlog::level::info, "branch b1 is ready", std::array<log_field, 1>{{{"tag", "b1"}}});
  EXPECT_EQ(text_.str(), "info test: branch b1 is ready\n");
}

TEST_F(log_test, journald_is_told_how_grave_a_line_is_and_nobody_else) {
  testing::internal::CaptureStderr();
  struct stat about {};
  EXPECT_EQ(::fstat(STDERR_FILENO, &about), 0);
  const auto stream = std::to_string(about.st_dev) + ":" + std::to_string(about.st_ino);
  ::setenv("JOURNAL_STREAM", stream.c_str(), 1);
  log_to_stderr("test", "info", log_format::json);
  spdlog::info("fine");
  spdlog::warn("bad");
  ::setenv("JOURNAL_STREAM", "1:2", 1);  // a parent's stderr
  log_to_stderr("test", "info");
  spdlog::error("worse");
  ::unsetenv("JOURNAL_STREAM");
  spdlog::set_default_logger(before_);  // what was logged is written before the logger is gone
  EXPECT_THAT(testing::internal::GetCapturedStderr(), MatchesRegex("<6>\\{.*fine.*\n<4>\\{.*bad.*\n[^<].*worse\n"));
}

}  // namespace
}  // namespace coppice
