#include "base/json_string.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

std::string quoted(std::string_view text) {
  std::string to;
  append_json_string(to, text);
  return to;
}

TEST(json_string, plain_text_is_only_quoted) {
  EXPECT_EQ(quoted("a branch: 12 ms"), R"("a branch: 12 ms")");
  EXPECT_EQ(quoted(""), R"("")");
}

TEST(json_string, quotes_backslashes_and_control_characters_are_escaped) {
  EXPECT_EQ(quoted("\"\\\n\t\r"), R"("\"\\\n\t\r")");
  EXPECT_EQ(quoted({"\0\x1f\x7f", 3}), "\"\\u0000\\u001f\x7f\"");
}

TEST(json_string, utf8_stays_as_it_is) {
  EXPECT_EQ(quoted("µs → 😀"), "\"µs → 😀\"");
}

TEST(json_string, each_byte_that_is_no_utf8_becomes_a_replacement_character) {
  EXPECT_EQ(quoted("a\xff\xc3"), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");                // never valid; cut off
  EXPECT_EQ(quoted("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");                  // too long for its value
  EXPECT_EQ(quoted("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");  // a surrogate
  EXPECT_EQ(quoted("\xf4\x90\x80\x80").size(), 2U + 4 * 3);                       // above U+10FFFF
}

}  // namespace
}  // namespace coppice
