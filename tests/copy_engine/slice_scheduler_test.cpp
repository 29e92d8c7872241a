// Long changes of protection, a slice at a time. The test is the helper, too.
#include "copy_engine/slice_scheduler.hpp"

#include <gtest/gtest.h>

#include "copy_engine/epoch_steps.hpp"
#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

using testing::outcomes;

class slice_scheduler_test : public ::testing::Test {
 protected:
  slice_scheduler_test() { vms[3] = guest.vm; }

  // Begins a slice, and the helper makes it. False: there was none to do.
  bool make_slice() {
    slices.begin_next();
    return helper.run_one();
  }
  // And its result comes back.
  bool do_slice() { return make_slice() && results.run_one(); }
  void do_all() {
    while (do_slice()) {
    }
  }
  std::shared_ptr<memory_epoch> prearm(testing::fake_vm& of) {
    auto epoch = of.make_epoch();
    prearm_epoch(epoch, [this](const result<void>& outcome) { prearms.push_back(testing::code_of(outcome)); });
    return epoch;
  }
  // As a fault during the pre-arm does.
  void touch(memory_epoch& epoch, std::size_t page) {
    epoch.touch(page);
    guest.protection->pages.erase(page);
  }
  static void settle(memory_epoch& epoch, std::size_t first, std::size_t end) {
    for (std::size_t page = first; page < end; ++page) epoch.states.skip(page);
  }

  bounce_pool pool = *bounce_pool::create(2 * slice_pages * page_size);
  attached_vms vms;
  testing::manual_executor helper, results;
  slice_scheduler slices{vms, pool, helper, [this](auto task) { results.post(std::move(task)); }};
  testing::fake_vm guest{2 * slice_pages + block_pages};
  outcomes prearms;  // that ended
};

TEST_F(slice_scheduler_test, a_pre_arm_protects_all_of_ram_one_slice_after_the_other) {
  const auto epoch = prearm(guest);
  slices.begin_next();
  slices.begin_next();
  EXPECT_EQ(helper.queued(), 1U) << "one is under way";
  helper.run_one();
  EXPECT_EQ(guest.protection->pages.size(), slice_pages);
  slices.begin_next();
  EXPECT_EQ(helper.queued(), 0U) << "the fault thread has yet to hear of it";
  results.run_one();
  do_all();
  EXPECT_EQ(guest.protection->pages.size(), epoch->states.size());
  EXPECT_EQ(epoch->phase, epoch_phase::prearmed);
  EXPECT_EQ(prearms, outcomes{std::nullopt});
}

TEST_F(slice_scheduler_test, what_was_touched_meanwhile_is_protected_again_before_the_pre_arm_ends) {
  const auto epoch = prearm(guest);
  do_slice();
  for (std::size_t page = 0; page < 600; ++page) touch(*epoch, page);
  do_all();
  EXPECT_EQ(epoch->phase, epoch_phase::prearmed);
  EXPECT_TRUE(epoch->touched.empty());
  EXPECT_EQ(guest.protection->pages.size(), epoch->states.size());
}

TEST_F(slice_scheduler_test, a_page_touched_while_it_is_protected_again_is_left_to_the_re_arm) {
  const auto epoch = prearm(guest);
  for (std::size_t page = 0; page < 20; ++page) touch(*epoch, page);
  while (epoch->prearm_offset < guest.memory->size()) do_slice();
  ASSERT_TRUE(make_slice());  // protects the 20 again
  touch(*epoch, 11);
  results.run_one();
  do_all();
  EXPECT_EQ(epoch->phase, epoch_phase::prearmed);
  EXPECT_EQ(epoch->touched, std::vector<std::size_t>{11});
}

TEST_F(slice_scheduler_test, a_guest_that_touches_pages_all_the_time_does_not_keep_a_pre_arm_from_its_end) {
  const auto epoch = prearm(guest);
  int slices_made = 0;
  for (; prearms.empty() && slices_made < 100; ++slices_made) {
    make_slice();
    for (std::size_t page = 0; page < 100; ++page) touch(*epoch, page);
    results.run_one();
  }
  EXPECT_EQ(epoch->phase, epoch_phase::prearmed);
  EXPECT_LT(slices_made, 10);
  EXPECT_EQ(epoch->touched.size(), 100U);
}

TEST_F(slice_scheduler_test, a_pre_arm_that_the_kernel_refuses_fails) {
  const auto epoch = prearm(guest);
  guest.protection->fails = error{errc::io, 0, "the kernel refuses"};
  do_all();
  EXPECT_EQ(prearms, outcomes{errc::io});
  EXPECT_EQ(epoch->phase, epoch_phase::failed);
}

TEST_F(slice_scheduler_test, of_several_pre_arms_the_one_of_the_smaller_vm_comes_first) {
  testing::fake_vm small(block_pages);
  vms[7] = small.vm;
  const auto large_one = prearm(guest);
  const auto small_one = prearm(small);
  large_one->prearm_begin = small_one->prearm_begin;
  do_slice();
  EXPECT_EQ(small_one->phase, epoch_phase::prearmed);
  EXPECT_TRUE(guest.protection->pages.empty());
}

TEST_F(slice_scheduler_test, a_slice_is_lifted_as_soon_as_all_of_it_is_copied) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  guest.vm->begin_lifting();
  settle(*epoch, 0, slice_pages - 1);
  EXPECT_FALSE(do_slice());
  settle(*epoch, slice_pages - 1, slice_pages);
  EXPECT_TRUE(do_slice());
  EXPECT_EQ(*guest.protection->pages.begin(), slice_pages);
  EXPECT_FALSE(do_slice());
}

TEST_F(slice_scheduler_test, the_end_of_the_last_epoch_is_heard_when_all_is_lifted) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  bool closed = false;
  close_epoch(*epoch, [&] { closed = true; });
  do_slice();
  do_slice();
  EXPECT_FALSE(closed);
  do_all();
  EXPECT_TRUE(closed);
  EXPECT_TRUE(guest.protection->pages.empty());
}

TEST_F(slice_scheduler_test, nothing_is_lifted_while_an_epoch_pre_arms_and_then_all_of_it_from_the_start) {
  const auto first = guest.epoch_in(epoch_phase::active);
  guest.vm->begin_lifting();
  settle(*first, 0, first->states.size());
  ASSERT_TRUE(make_slice());  // is being lifted when the pre-arm begins
  const auto second = prearm(guest);
  results.run_one();
  EXPECT_FALSE(guest.vm->lift_offset);
  do_all();
  EXPECT_EQ(second->phase, epoch_phase::prearmed);
  EXPECT_EQ(guest.protection->pages.size(), second->states.size()) << "what that slice lifted, too";
  rearm_epoch(*second, [](const auto&) {});
  settle(*second, 0, slice_pages);
  do_all();
  EXPECT_EQ(*guest.protection->pages.begin(), slice_pages);
}

TEST_F(slice_scheduler_test, a_slice_of_an_epoch_that_is_closed_meanwhile_changes_nothing_for_it) {
  const auto epoch = prearm(guest);
  ASSERT_TRUE(make_slice());
  bool closed = false;
  close_epoch(*epoch, [&] { closed = true; });
  results.run_one();
  EXPECT_EQ(epoch->phase, epoch_phase::closed);
  EXPECT_EQ(prearms, outcomes{errc::cancelled});
  do_all();
  EXPECT_TRUE(closed);
  EXPECT_TRUE(guest.protection->pages.empty());
}

TEST_F(slice_scheduler_test, vms_take_turns) {
  testing::fake_vm other(2 * slice_pages);
  vms[7] = other.vm;
  for (const auto& each : {guest.epoch_in(epoch_phase::active), other.epoch_in(epoch_phase::active)})
    close_epoch(*each, [] {});
  do_slice();
  do_slice();
  EXPECT_EQ(*guest.protection->pages.begin(), slice_pages);
  EXPECT_EQ(*other.protection->pages.begin(), slice_pages);
}

TEST_F(slice_scheduler_test, a_lifting_that_fails_keeps_nobody_waiting) {
  bool closed = false;
  close_epoch(*guest.epoch_in(epoch_phase::active), [&] { closed = true; });
  guest.protection->fails = error{errc::unavailable, 0, "the VM's process is gone"};
  do_slice();
  EXPECT_TRUE(closed);
  EXPECT_FALSE(do_slice());
}

TEST_F(slice_scheduler_test, bounce_memory_is_given_back_once_no_vm_is_branched) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  slices.trim_pool();
  EXPECT_FALSE(do_slice());
  close_epoch(*epoch, [] {});
  bounce_buffer* const buffer = pool.acquire(guest.vm->bounce);
  int done = 0;
  while (do_slice()) ++done;
  EXPECT_EQ(done, 3) << "the lifting; a buffer is in use";
  pool.release(buffer);
  while (do_slice()) ++done;
  EXPECT_EQ(done, 5) << "two slices of bounce memory";
}

}  // namespace
}  // namespace coppice
