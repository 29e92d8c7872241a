#include "base/tag.hpp"

#include <gtest/gtest.h>

#include <string>

namespace coppice {
namespace {

TEST(tag, ordinary_names_are_accepted) {
  for (const auto* tag : {"b", "b1", "base-2026.11_x", "0"}) EXPECT_TRUE(validate_tag(tag).ok()) << tag;
  EXPECT_TRUE(validate_tag(std::string(64, 'a')).ok());
}

TEST(tag, names_that_could_leave_the_folder_or_are_too_long_are_refused) {
  for (const auto* tag : {"", "../x", "a/b", ".hidden", "-flag", "a b", "a\n", "ä", "a\\b"}) {
    const auto checked = validate_tag(tag);
    ASSERT_FALSE(checked.ok()) << tag;
    EXPECT_EQ(checked.error().code, errc::invalid_argument);
  }
  EXPECT_FALSE(validate_tag(std::string(65, 'a')).ok());
}

}  // namespace
}  // namespace coppice
