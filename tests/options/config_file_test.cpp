#include "options/config_file.hpp"

#include <gmock/gmock.h>

namespace coppice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(config_file, has_strings_numbers_booleans_and_lists) {
  const auto parsed = parse_config(
      "# a comment\n\n"
      "listen = \"127.0.0.1:1\"  # not a part\n"
      "audit-log-bytes=4096\r\n"
      "insecure-listen = true\n"
      "allow-path = [ \"/a, b\", '/c#\\d',  # one more\n  \"/e \\\"f\\\\\" ]\n"
      "none = []",
      "c.toml");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message();
  ASSERT_EQ(parsed->size(), 5U);
  EXPECT_THAT((*parsed)[0].values, ElementsAre("127.0.0.1:1"));
  EXPECT_EQ((*parsed)[0].line, 3U);
  EXPECT_THAT((*parsed)[1].values, ElementsAre("4096"));
  EXPECT_THAT((*parsed)[2].values, ElementsAre("true"));
  EXPECT_THAT((*parsed)[3].values, ElementsAre("/a, b", "/c#\\d", "/e \"f\\"));
  EXPECT_THAT((*parsed)[4].values, ElementsAre());
  EXPECT_EQ((*parsed)[4].line, 8U);
}

TEST(config_file, what_is_wrong_is_said_with_file_and_line) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"copy-rate", "key-value pair"},
      {"= 1", "saw '='"},
      {"[limits]", "limits is a section"},
      {"limits.copy-rate = 1", "limits is a section"},
      {"copy-rate = 200M", "copy-rate = \"200M\""},
      {"copy-rate = fast", "copy-rate = \"200M\""},
      {"copy-rate = 1.5", "the value of copy-rate must be a string in quotes"},
      {"copy-rate = 2026-01-01", "the value of copy-rate must be a string in quotes"},
      {"copy-rate =", "key-value pair"},
      {"copy-rate = \"200M", "end-of-file"},
      {"copy-rate = \"\\q\"", "escape sequence"},
      {"copy-rate = \"1\" 2", "saw '2'"},
      {"allow-path = [\"/a\" \"/b\"]", "expected comma"},
      {"allow-path = [\"/a\",", "array"},
      {"allow-path = [\"/a\", [\"/b\"]]", "the value of allow-path must be"},
      {"root = \"/b\"", "cannot redefine existing string 'root'"}};
  for (const auto& [line, message] : wrong) {
    const auto parsed = parse_config("root = \"/a\"\n" + line, "c.toml");
    ASSERT_FALSE(parsed.ok()) << line;
    EXPECT_THAT(parsed.error().context, StartsWith("c.toml:2: ")) << line;
    EXPECT_THAT(parsed.error().context, HasSubstr(message)) << line;
  }
}

TEST(config_file, a_quoted_text_is_read_as_it_was) {
  const std::string text = R"(a "b" \c #d)";
  EXPECT_THAT(parse_config("x = " + quoted_for_config(text), "c")->at(0).values, ElementsAre(text));
}

}  // namespace
}  // namespace coppice
