#include "copy_engine/page_states.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <thread>

#include "copy_engine/fault_around.hpp"

namespace coppice {
namespace {

TEST(page_states, a_page_captured_in_flight_cannot_be_settled) {
  page_states states(1);
  EXPECT_TRUE(states.needs_capture(0));
  EXPECT_TRUE(states.claim(0));
  EXPECT_FALSE(states.claim(0));
  EXPECT_TRUE(states.needs_capture(0));
  EXPECT_TRUE(states.capture(0));
  EXPECT_EQ(states.at(0), page_state::captured_in_flight);
  EXPECT_FALSE(states.settle(0));
  EXPECT_FALSE(states.needs_capture(0));
}

TEST(page_states, a_settled_or_skipped_page_needs_no_capture) {
  page_states states(2);
  EXPECT_TRUE(states.claim(0));
  EXPECT_TRUE(states.settle(0));
  EXPECT_TRUE(states.skip(1));
  for (std::size_t page : {0U, 1U}) {
    EXPECT_FALSE(states.needs_capture(page));
    EXPECT_FALSE(states.capture(page));
    EXPECT_FALSE(states.claim(page));
    EXPECT_EQ(states.at(page), page_state::done);
  }
}

TEST(page_states, of_a_capture_and_a_settlement_at_the_same_time_one_wins) {
  constexpr std::size_t pages = 100'000;
  page_states states(pages);
  std::vector<char> settled(pages), captured(pages);
  std::thread fault([&] {
    for (std::size_t page = 0; page < pages; ++page) captured[page] = states.capture(page);
  });
  for (std::size_t page = 0; page < pages; ++page) settled[page] = states.claim(page) && states.settle(page);
  fault.join();
  for (std::size_t page = 0; page < pages; ++page) ASSERT_NE(settled[page], captured[page]) << page;
}

TEST(fault_around, sequential_writers_are_recognised_side_by_side) {
  fault_around around;
  std::array<std::size_t, 4> next{0, 1000, 2000, 3000};
  std::size_t faults = 0;
  for (int round = 0; round < 20; ++round) {
    for (std::size_t& page : next) {
      page += around.window_for(page);
      ++faults;
    }
  }
  EXPECT_GE(next[0], 8 * faults / 4) << "at most one fault for eight pages";
  EXPECT_EQ(around.window_for(next[3]), fault_around::max_window_pages);
}

TEST(fault_around, random_writes_get_one_page_each) {
  fault_around around;
  std::mt19937 random(7);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(around.window_for(random() % 1'000'000 * 2), 1U);
}

}  // namespace
}  // namespace coppice
