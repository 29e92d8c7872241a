#include "journal_guest/journal_oracle.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/units.hpp"
#include "journal_guest/journal_options.hpp"

namespace coppice {
namespace {

using journal::lane_header;
using journal::pattern;

// Memory of a guest that has done some steps: what the journal guest does, done here.
class simulated_guest {
 public:
  explicit simulated_guest(pattern writes, std::uint64_t lanes = 1, std::uint64_t pages = 256)
      : memory_(journal::lanes_address + lanes * pages * page_size) {
    for (std::uint64_t lane = 0; lane < lanes; ++lane) {
      lane_header& made = header(lane);
      made.magic = journal::magic;
      made.version = journal::layout_version;
      made.lane = lane;
      made.lanes = lanes;
      made.pages = pages;
      made.base = journal::lanes_address + lane * pages * page_size;
      made.pattern = static_cast<std::uint64_t>(writes);
    }
  }

  lane_header& header(std::uint64_t lane = 0) {
    return *reinterpret_cast<lane_header*>(memory_.data() + journal::header_address(lane));
  }
  void run(std::uint64_t steps, std::uint64_t lane = 0) {
    for (std::uint64_t i = 0; i < steps; ++i) {
      const std::uint64_t n = header(lane).step + 1;
      set(page(n, lane), n, n, lane);
      header(lane).step = n;
    }
  }
  std::uint64_t page(std::uint64_t n, std::uint64_t lane = 0) {
    return journal::page_of_step(static_cast<journal::pattern>(header(lane).pattern), header(lane).seed, lane,
                                 header(lane).pages, n);
  }
  void set(std::uint64_t page, std::uint64_t first, std::uint64_t last, std::uint64_t lane = 0) {
    std::byte* const at = memory_.data() + header(lane).base + page * page_size;
    std::memcpy(at, &first, 8);
    std::memcpy(at + page_size - 8, &last, 8);
  }
  journal_report check() {
    auto report = check_journal_image(std::span<const std::byte>(memory_));
    EXPECT_TRUE(report) << report.error().message();
    return report ? *report : journal_report{};
  }
  std::vector<std::byte> memory_;
};

class journal_oracle : public ::testing::TestWithParam<pattern> {};

TEST_P(journal_oracle, finds_nothing_in_an_image_of_one_instant) {
  for (std::uint64_t steps : {0U, 1U, 100U, 256U, 257U, 5000U}) {
    simulated_guest guest(GetParam(), 2);
    guest.run(steps, 0);
    guest.run(steps + 7, 1);
    const auto report = guest.check();
    EXPECT_TRUE(report.is_journal);
    EXPECT_EQ(report.bad_pages(), 0U) << steps;
    EXPECT_EQ(report.steps, 2 * steps + 7);
    EXPECT_EQ(report.pages, 512U);
  }
}

TEST_P(journal_oracle, lets_the_next_step_be_half_done_but_no_other) {
  simulated_guest guest(GetParam());
  guest.run(5000);
  std::uint64_t old = 0;
  const std::uint64_t page = guest.page(5001);
  std::memcpy(&old, guest.memory_.data() + guest.header().base + page * page_size, 8);
  guest.set(page, 5001, old);
  EXPECT_EQ(guest.check().bad_pages(), 0U);
  guest.set(page, 5001, 5001);
  EXPECT_EQ(guest.check().bad_pages(), 0U);
  guest.set(page, old, 5001);  // the last word is written after the first
  EXPECT_EQ(guest.check().torn, 1U);
  guest.set(page, 5002, 5002);
  EXPECT_EQ(guest.check().future, 1U);
}

TEST_P(journal_oracle, counts_pages_that_are_too_new_too_old_or_torn) {
  simulated_guest guest(GetParam());
  guest.run(5000);
  guest.set(guest.page(4999), 7000, 7000);
  EXPECT_EQ(guest.check().future, 1U);
  guest.set(guest.page(5000), 1, 1);
  EXPECT_EQ(guest.check().lost, guest.page(5000) == guest.page(4999) ? 0U : 1U);
  guest.set(3, 123456, 7);
  EXPECT_EQ(guest.check().torn, 1U);
}

TEST_P(journal_oracle, finds_memory_that_is_older_than_its_step) {
  simulated_guest guest(GetParam());
  guest.run(5000);
  guest.header().step = 5100;
  EXPECT_GT(guest.check().lost, 10U);
  guest.header().step = 4900;
  EXPECT_GT(guest.check().future, 10U);
}

INSTANTIATE_TEST_SUITE_P(pattern, journal_oracle,
                         ::testing::Values(pattern::random, pattern::sequential, pattern::zipf));

TEST(journal_image, of_another_guest_is_not_judged) {
  const std::vector<std::byte> zeros(8 * mib);
  auto report = check_journal_image(std::span<const std::byte>(zeros));
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->is_journal);
  EXPECT_FALSE(read_journal(zeros));
}

TEST(journal_image, with_a_damaged_header_is_an_error_and_no_crash) {
  simulated_guest guest(pattern::random);
  guest.header().pages = ~0ULL;
  EXPECT_EQ(check_journal_image(std::span<const std::byte>(guest.memory_)).error().code, errc::corrupt);
}

TEST(journal_reading, reports_the_longest_stall_since_an_earlier_reading) {
  simulated_guest guest(pattern::random);
  guest.run(300);
  const auto add = [&](std::uint64_t milliseconds) {
    lane_header& header = guest.header();
    header.ring[header.stalls++ % journal::stall_ring_size] = {
        header.step, static_cast<std::uint64_t>(tsc_hertz() * 1e-3) * milliseconds};
  };
  add(50);
  const auto before = read_journal(guest.memory_);
  ASSERT_TRUE(before);
  EXPECT_NEAR(static_cast<double>(before->longest_stall.count()), 50e6, 1e5);
  for (std::uint64_t i = 0; i < 500; ++i) add(i % 7);
  const auto after = read_journal(guest.memory_, *before);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->steps, 300U);
  EXPECT_NEAR(static_cast<double>(after->longest_stall.count()), 6e6, 1e5);
}

TEST(journal_sequence, every_pattern_reaches_pages_and_stays_in_bounds) {
  for (const pattern writes : {pattern::random, pattern::sequential, pattern::zipf}) {
    std::vector<std::uint64_t> hits(100);
    for (std::uint64_t n = 101; n <= 20'100; ++n) ++hits.at(journal::page_of_step(writes, 1, 1, 100, n));
    if (writes == pattern::zipf) {
      EXPECT_GT(hits[0], 20 * std::max<std::uint64_t>(hits[99], 1)) << "a few pages take most writes";
    } else {
      for (const auto count : hits) EXPECT_GT(count, 100U);
    }
  }
}

TEST(journal_options, the_rest_between_two_steps_is_read_and_bounded) {
  journal::options chosen;
  EXPECT_TRUE(journal::parse_options("journal.pages=16 journal.rest_us=500", chosen).message.empty());
  EXPECT_EQ(chosen.rest_us, 500U);
  EXPECT_FALSE(journal::parse_options("journal.rest_us=1000001", chosen).message.empty());
}

}  // namespace
}  // namespace coppice
