#include "base/units.hpp"

#include <gtest/gtest.h>

namespace coppice {
namespace {

TEST(units, sizes_are_read_with_binary_suffixes) {
  EXPECT_EQ(*parse_bytes("4096"), 4096u);
  EXPECT_EQ(*parse_bytes("64K"), 64 * kib);
  EXPECT_EQ(*parse_bytes("256M"), 256 * mib);
  EXPECT_EQ(*parse_bytes("256MiB"), 256 * mib);
  EXPECT_EQ(*parse_bytes("6G"), 6 * gib);
}

TEST(units, what_is_no_size_is_refused_with_an_example) {
  for (const auto* text : {"", "M", "-1M", "1.5G", "12X", "99999999999999999999", "99999999999G"}) {
    const auto parsed = parse_bytes(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.error().message().find("256M"), std::string::npos);
  }
}

TEST(units, sizes_are_written_for_people) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(256 * mib), "256.0 MiB");
}

}  // namespace
}  // namespace coppice
