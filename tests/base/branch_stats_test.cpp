#include "base/branch_stats.hpp"

#include <gmock/gmock.h>

namespace coppice {
namespace {

TEST(branch_mode, every_name_is_read_back) {
  for (const branch_mode mode : {branch_mode::live, branch_mode::full, branch_mode::diff}) {
    const auto parsed = parse_branch_mode(to_string(mode));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, mode);
  }
}

TEST(branch_mode, an_unknown_name_is_refused_with_the_names_there_are) {
  for (const char* text : {"", "Live", "live ", "fast"}) {
    const auto parsed = parse_branch_mode(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, errc::invalid_argument);
    EXPECT_THAT(parsed.error().message(), testing::HasSubstr("live, full or diff"));
  }
}

}  // namespace
}  // namespace coppice
