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

class json_log_test : public log_test {
 protected:
  json_log_test() { sink_->set_formatter(make_json_formatter()); }

  // `text` as it stands in a line, quotes included.
  std::string quoted(std::string_view text) {
    text_.str("");
    spdlog::log(spdlog::level::info, spdlog::string_view_t(text.data(), text.size()));
    const auto line = text_.str();
    const auto begin = line.find("\"message\":") + 10;
    return line.substr(begin, line.size() - begin - 2);
  }
};

TEST_F(json_log_test, plain_text_is_only_quoted) {
  EXPECT_EQ(quoted("a branch: 12 ms"), R"("a branch: 12 ms")");
  EXPECT_EQ(quoted(""), R"("")");
}

TEST_F(json_log_test, quotes_backslashes_and_control_characters_are_escaped) {
  EXPECT_EQ(quoted("\"\\\n\t\r"), R"("\"\\\n\t\r")");
  EXPECT_EQ(quoted({"\0\x1f\x7f", 3}), "\"\\u0000\\u001f\x7f\"");
}

TEST_F(json_log_test, utf8_stays_as_it_is) {
  EXPECT_EQ(quoted("µs → 😀"), "\"µs → 😀\"");
}

TEST_F(json_log_test, each_byte_that_is_no_utf8_becomes_a_replacement_character) {
  EXPECT_EQ(quoted("a\xff\xc3"), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");                // never valid; cut off
  EXPECT_EQ(quoted("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");                  // too long for its value
  EXPECT_EQ(quoted("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");  // a surrogate
  EXPECT_EQ(quoted("\xf4\x90\x80\x80").size(), 2U + 4 * 3);                       // above U+10FFFF
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
