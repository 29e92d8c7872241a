// Faults that find no bounce buffer, and how long they wait.
#include "copy_engine/fault_queue.hpp"

#include <gtest/gtest.h>

#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

using std::chrono::milliseconds;

class fault_queue_test : public ::testing::Test {
 protected:
  fault_queue_test() {
    vms[3] = first.vm;
    vms[4] = second.vm;
  }
  // Of a third VM: so that there are none left.
  void use_up_the_pool() {
    while (pool.available() > 0) held.push_back(pool.acquire(other));
  }
  void release(std::size_t buffers) {
    for (; buffers > 0; --buffers, held.pop_back()) pool.release(held.back());
  }
  static bool is_served(const testing::fake_vm& guest, std::size_t page) {
    return !guest.protection->pages.contains(page);
  }

  bounce_pool pool = *bounce_pool::create(8 * page_size);
  bounce_share other;
  std::vector<bounce_buffer*> held;
  engine_counters counters;
  fault_server server{pool, counters};
  attached_vms vms;
  fault_queue faults{vms, server, counters, milliseconds(200)};
  testing::fake_vm first{block_pages}, second{block_pages};
  const engine_clock::time_point noon = engine_clock::time_point() + std::chrono::hours(12);
};

TEST_F(fault_queue_test, a_fault_without_a_buffer_waits_until_one_is_released) {
  first.epoch_in(epoch_phase::active);
  use_up_the_pool();
  faults.add(*first.vm, 5, noon);
  EXPECT_TRUE(faults.anything_waits());
  EXPECT_FALSE(is_served(first, 5));
  faults.retry();
  EXPECT_FALSE(is_served(first, 5));
  release(1);
  faults.retry();
  EXPECT_TRUE(is_served(first, 5));
  EXPECT_FALSE(faults.anything_waits());
  EXPECT_EQ(counters.deferred_faults, 1U);
}

TEST_F(fault_queue_test, new_faults_of_a_vm_come_after_those_that_wait) {
  first.epoch_in(epoch_phase::active);
  use_up_the_pool();
  faults.add(*first.vm, 5, noon);
  release(1);
  faults.add(*first.vm, 90, noon);
  EXPECT_FALSE(is_served(first, 90)) << "the buffer is for page 5";
  faults.retry();
  EXPECT_TRUE(is_served(first, 5));
  EXPECT_FALSE(is_served(first, 90));
}

TEST_F(fault_queue_test, vms_have_free_buffers_in_turn) {
  first.epoch_in(epoch_phase::active);
  second.epoch_in(epoch_phase::active);
  use_up_the_pool();
  for (const std::size_t page : {10U, 20U, 30U}) faults.add(*first.vm, page, noon);
  faults.add(*second.vm, 10, noon);
  release(2);
  faults.retry();
  EXPECT_TRUE(is_served(first, 10) && is_served(second, 10));
  EXPECT_FALSE(is_served(first, 20));
}

TEST_F(fault_queue_test, a_page_that_was_saved_meanwhile_needs_no_buffer_whatever_waits_before_it) {
  const auto epoch = first.epoch_in(epoch_phase::active);
  use_up_the_pool();
  faults.add(*first.vm, 5, noon);
  faults.add(*first.vm, 90, noon);
  ASSERT_TRUE(epoch->states.skip(90));
  faults.retry();
  EXPECT_TRUE(is_served(first, 90));
  EXPECT_FALSE(is_served(first, 5));
  EXPECT_TRUE(faults.anything_waits());
}

TEST_F(fault_queue_test, a_fault_that_waits_too_long_costs_the_epochs_that_need_its_page) {
  const auto needs_it = first.epoch_in(epoch_phase::active);
  const auto has_saved_it = first.epoch_in(epoch_phase::active);
  ASSERT_TRUE(has_saved_it->states.skip(5));
  use_up_the_pool();
  faults.add(*first.vm, 5, noon);
  faults.give_up_overdue(noon + milliseconds(199));
  EXPECT_TRUE(first.given_up.empty());
  EXPECT_FALSE(is_served(first, 5));
  faults.give_up_overdue(noon + milliseconds(200));
  EXPECT_TRUE(is_served(first, 5));
  EXPECT_FALSE(faults.anything_waits());
  ASSERT_EQ(first.given_up.size(), 1U);
  EXPECT_EQ(first.given_up[0].first, needs_it);
  EXPECT_EQ(first.given_up[0].second.code, errc::unavailable);
  EXPECT_EQ(needs_it->phase, epoch_phase::failed);
  EXPECT_TRUE(needs_it->why_over());
  EXPECT_EQ(has_saved_it->phase, epoch_phase::active);
}

TEST_F(fault_queue_test, the_time_left_is_that_of_the_oldest_in_whole_milliseconds) {
  first.epoch_in(epoch_phase::active);
  second.epoch_in(epoch_phase::active);
  EXPECT_FALSE(faults.time_left(noon));
  use_up_the_pool();
  faults.add(*second.vm, 5, noon);
  faults.add(*first.vm, 5, noon + milliseconds(50));
  EXPECT_EQ(faults.time_left(noon + milliseconds(60)), milliseconds(140));
  EXPECT_EQ(faults.time_left(noon + std::chrono::microseconds(199'001)), milliseconds(1)) << "not zero too early";
  EXPECT_EQ(faults.time_left(noon + milliseconds(300)), milliseconds(0));
}

TEST_F(fault_queue_test, a_vm_that_is_gone_waits_for_nothing) {
  first.epoch_in(epoch_phase::active);
  use_up_the_pool();
  faults.add(*first.vm, 5, noon);
  faults.forget(*first.vm);
  EXPECT_FALSE(faults.anything_waits());
}

TEST_F(fault_queue_test, a_sequential_writer_is_served_ahead) {
  const auto epoch = first.epoch_in(epoch_phase::active);
  faults.add(*first.vm, 5, noon);
  faults.add(*first.vm, 6, noon);
  EXPECT_TRUE(is_served(first, 7));
  EXPECT_FALSE(is_served(first, 8));
  EXPECT_EQ(epoch->states.at(7), page_state::captured);
}

}  // namespace
}  // namespace coppice
