#include "cli/config_file.hpp"

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
  const std::vector<std::pair<std::string, std::string>> wrong = {{"copy-rate", "'key = value'"},
                                                                  {"= 1", "'key = value'"},
                                                                  {"[limits]", "section"},
                                                                  {"copy-rate = 200M", "string in quotes"},
                                                                  {"copy-rate =", "string in quotes"},
                                                                  {"copy-rate = \"200M", "closing quote"},
                                                                  {"copy-rate = \"200M\\", "follow a"},
                                                                  {"copy-rate = \"\\n\"", "only \\\" and \\\\"},
                                                                  {"copy-rate = \"1\" 2", "something follows"},
                                                                  {"allow-path = [\"/a\" \"/b\"]", "comma"},
                                                                  {"allow-path = [\"/a\",", "no end"},
                                                                  {"root = \"/b\"", "stands in line 1 already"}};
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
