#include "bench/parsing.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/units.hpp"

namespace coppice::bench {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

TEST(parsing, a_list_is_split_at_its_commas) {
  EXPECT_THAT(*parse_list("a,b,c"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(*parse_list("a"), ElementsAre("a"));
}

TEST(parsing, an_empty_part_of_a_list_is_refused) {
  for (const char* text : {"", ",", "a,", ",a", "a,,b"}) {
    const auto parsed = parse_list(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, errc::invalid_argument);
  }
}

TEST(parsing, sizes_have_units) {
  EXPECT_THAT(*parse_sizes("256M,1G"), ElementsAre(256 * mib, gib));
  EXPECT_FALSE(parse_sizes("256M,x"));
}

TEST(parsing, modes_are_those_of_a_branch) {
  EXPECT_THAT(*parse_modes("live,full,diff"), ElementsAre(branch_mode::live, branch_mode::full, branch_mode::diff));
  EXPECT_FALSE(parse_modes("live,cold"));
}

TEST(parsing, patterns_are_those_of_the_journal_guest) {
  EXPECT_THAT(*parse_patterns("random,sequential,zipf"), ElementsAre("random", "sequential", "zipf"));
  EXPECT_FALSE(parse_patterns("random,linear"));
}

TEST(parsing, durations_have_units) {
  EXPECT_EQ(*parse_duration("500ms"), milliseconds(500));
  EXPECT_EQ(*parse_duration("60s"), milliseconds(60'000));
  EXPECT_EQ(*parse_duration("2m"), milliseconds(120'000));
}

TEST(parsing, a_duration_without_a_unit_or_a_length_is_refused) {
  for (const char* text : {"", "60", "s", "0s", "-1s", "1h", "1 s", "1.5s", "99999999s"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(parsing, a_short_size_reads_back_as_itself) {
  for (const std::uint64_t size : {std::uint64_t{1}, 12 * kib, 252 * mib, 4 * gib, gib + kib})
    EXPECT_EQ(*parse_bytes(short_size(size)), size);
  EXPECT_EQ(short_size(256 * mib), "256M");
}

}  // namespace
}  // namespace coppice::bench
