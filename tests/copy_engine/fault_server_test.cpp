// What is done at a fault, without one.
#include "copy_engine/fault_server.hpp"

#include <gtest/gtest.h>

#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

class fault_server_test : public ::testing::Test {
 protected:
  bool is_protected(std::size_t page) const { return guest.protection->pages.contains(page); }

  bounce_pool pool = *bounce_pool::create(64 * page_size);
  engine_counters counters;
  fault_server server{pool, counters};
  testing::fake_vm guest{4 * block_pages};
};

TEST_F(fault_server_test, a_page_is_saved_and_marked_before_it_is_lifted) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  guest.write(7, 42);
  page_state at_lift = page_state::armed;
  bool was_pushed = false;
  guest.protection->before_lift = [&](const memory_region&) {
    at_lift = epoch->states.at(7);
    was_pushed = !epoch->captures.empty();
  };
  ASSERT_TRUE(server.serve(*guest.vm, 7));
  EXPECT_EQ(at_lift, page_state::captured);
  EXPECT_TRUE(was_pushed);
  EXPECT_FALSE(is_protected(7));
  EXPECT_TRUE(is_protected(6) && is_protected(8));
  guest.write(7, 43);
  const bounce_buffer* const saved = epoch->captures.take_all();
  EXPECT_EQ(saved->page, 7U);
  EXPECT_EQ(saved->data[0], std::byte(42));
  EXPECT_EQ(guest.wakeups, 1);
  EXPECT_EQ(epoch->capturing_faults, 1U);
}

TEST_F(fault_server_test, a_page_in_flight_is_captured_for_the_write_to_be_overwritten) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  ASSERT_TRUE(epoch->states.claim(7));
  ASSERT_TRUE(server.serve(*guest.vm, 7));
  EXPECT_EQ(epoch->states.at(7), page_state::captured_in_flight);
  EXPECT_FALSE(epoch->states.settle(7));
}

TEST_F(fault_server_test, saved_pages_are_lifted_with_their_neighbours_of_the_block_and_no_others) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  for (std::size_t page = block_pages - 3; page < block_pages + 10; ++page) epoch->states.skip(page);
  ASSERT_TRUE(epoch->states.claim(block_pages + 10));  // in flight: needed
  ASSERT_TRUE(server.serve(*guest.vm, block_pages + 5));
  EXPECT_TRUE(is_protected(block_pages - 1)) << "of another block";
  for (std::size_t page = block_pages; page < block_pages + 10; ++page) EXPECT_FALSE(is_protected(page));
  EXPECT_TRUE(is_protected(block_pages + 10));
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(fault_server_test, a_page_that_one_epoch_has_saved_is_noted_for_another_that_has_yet_to_begin) {
  const auto active = guest.epoch_in(epoch_phase::active);
  const auto prearmed = guest.epoch_in(epoch_phase::prearmed);
  active->states.skip(7);
  ASSERT_TRUE(server.serve(*guest.vm, 7));
  EXPECT_FALSE(is_protected(7));
  EXPECT_TRUE(is_protected(8)) << "it must hear of a write there";
  EXPECT_EQ(prearmed->touched, std::vector<std::size_t>{7});
  ASSERT_TRUE(server.serve(*guest.vm, 7));
  EXPECT_EQ(prearmed->touched.size(), 1U) << "noted once";
  EXPECT_EQ(prearmed->touches_of_block[0], 1U);
}

TEST_F(fault_server_test, a_page_that_several_epochs_need_is_captured_for_each_as_buffers_come) {
  const auto first = guest.epoch_in(epoch_phase::active);
  const auto second = guest.epoch_in(epoch_phase::active);
  EXPECT_FALSE(server.serve(*guest.vm, 7, 1, 1));
  EXPECT_FALSE(first->states.needs_capture(7));
  EXPECT_TRUE(second->states.needs_capture(7));
  EXPECT_TRUE(is_protected(7));
  EXPECT_TRUE(server.serve(*guest.vm, 7, 1, 1));
  EXPECT_FALSE(second->states.needs_capture(7));
  EXPECT_FALSE(is_protected(7));
}

TEST_F(fault_server_test, a_window_is_captured_whole_or_is_the_page_alone) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  EXPECT_TRUE(server.serve(*guest.vm, 0, 16, 15));
  EXPECT_FALSE(is_protected(0));
  EXPECT_TRUE(is_protected(1));
  EXPECT_TRUE(server.serve(*guest.vm, 16, 16, 16));
  for (std::size_t page = 16; page < 32; ++page) EXPECT_EQ(epoch->states.at(page), page_state::captured);
  EXPECT_EQ(counters.captured_pages, 17U);
  EXPECT_EQ(epoch->capturing_faults, 2U);
}

TEST_F(fault_server_test, a_window_ends_with_its_region) {
  testing::fake_vm split(block_pages, 10);
  const auto epoch = split.epoch_in(epoch_phase::active);
  ASSERT_TRUE(server.serve(*split.vm, 8, 16, 16));
  EXPECT_EQ(epoch->states.at(9), page_state::captured);
  EXPECT_EQ(epoch->states.at(10), page_state::armed);
  EXPECT_TRUE(split.protection->pages.contains(10));
}

TEST_F(fault_server_test, an_epoch_that_has_failed_needs_nothing) {
  guest.epoch_in(epoch_phase::failed);
  EXPECT_TRUE(server.serve(*guest.vm, 7, 1, 0));
  EXPECT_FALSE(is_protected(7));
}

TEST_F(fault_server_test, without_an_epoch_the_whole_block_is_lifted) {
  guest.protection->pages = {0, 1, block_pages - 1, block_pages};
  EXPECT_TRUE(server.serve(*guest.vm, 1));
  EXPECT_EQ(guest.protection->pages, std::set<std::size_t>{block_pages});
}

}  // namespace
}  // namespace coppice
