// An epoch's phases.
#include "copy_engine/epoch_steps.hpp"

#include <gtest/gtest.h>

#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

using testing::outcomes;

class epoch_steps_test : public ::testing::Test {
 protected:
  auto note() {
    return [this](const result<void>& outcome) { answers.push_back(testing::code_of(outcome)); };
  }

  testing::fake_vm guest{4 * block_pages};
  outcomes answers;
};

TEST_F(epoch_steps_test, a_pre_arm_is_asked_for_once_and_of_a_vm_that_is_there) {
  const auto epoch = guest.make_epoch();
  prearm_epoch(epoch, note());
  EXPECT_EQ(epoch->phase, epoch_phase::prearming);
  EXPECT_TRUE(answers.empty());
  prearm_epoch(epoch, note());
  EXPECT_EQ(answers, outcomes{errc::internal});
  guest.vm->protection.reset();
  prearm_epoch(guest.make_epoch(), note());
  EXPECT_EQ(answers.back(), errc::unavailable);
}

TEST_F(epoch_steps_test, the_re_arm_protects_what_was_touched_and_begins_the_epoch) {
  const auto epoch = guest.epoch_in(epoch_phase::prearmed);
  for (const std::size_t page : {9U, 3U, 4U}) {
    epoch->touch(page);
    guest.protection->pages.erase(page);
  }
  rearm_epoch(*epoch, note());
  EXPECT_EQ(answers, outcomes{std::nullopt});
  EXPECT_EQ(guest.protection->pages.size(), epoch->states.size());
  EXPECT_EQ(epoch->phase, epoch_phase::active);
  EXPECT_FALSE(epoch->why_over());
  EXPECT_EQ(guest.vm->lift_offset, 0U) << "what is copied may be lifted from now on";
}

TEST_F(epoch_steps_test, a_re_arm_without_a_pre_arm_is_refused) {
  rearm_epoch(*guest.epoch_in(epoch_phase::prearming), note());
  EXPECT_EQ(answers, outcomes{errc::internal});
}

TEST_F(epoch_steps_test, an_epoch_whose_re_arm_fails_does_not_begin) {
  const auto epoch = guest.epoch_in(epoch_phase::prearmed);
  epoch->touch(3);
  guest.protection->fails = error{errc::io, 0, "the kernel refuses"};
  rearm_epoch(*epoch, note());
  EXPECT_EQ(answers, outcomes{errc::io});
  EXPECT_EQ(epoch->phase, epoch_phase::failed);
  EXPECT_TRUE(epoch->why_over());
}

TEST_F(epoch_steps_test, the_last_epoch_is_closed_when_all_is_lifted) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  bool closed = false;
  close_epoch(*epoch, [&] { closed = true; });
  EXPECT_FALSE(closed);
  EXPECT_EQ(epoch->phase, epoch_phase::closed);
  ASSERT_TRUE(guest.vm->next_to_lift());
  EXPECT_EQ(guest.vm->next_to_lift()->size, guest.memory->size()) << "nobody needs any page";
  guest.vm->end_lifting();
  EXPECT_TRUE(closed);
}

TEST_F(epoch_steps_test, one_of_several_is_closed_at_once) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  const auto other = guest.epoch_in(epoch_phase::active);
  bool closed = false;
  close_epoch(*epoch, [&] { closed = true; });
  EXPECT_TRUE(closed);
  EXPECT_FALSE(guest.vm->next_to_lift()) << "the other one needs all";
  EXPECT_EQ(guest.vm->epochs, std::vector{other});
}

TEST_F(epoch_steps_test, nothing_is_lifted_for_an_epoch_that_is_closed_while_another_pre_arms) {
  const auto epoch = guest.epoch_in(epoch_phase::active);
  guest.epoch_in(epoch_phase::prearming);
  close_epoch(*epoch, [] {});
  EXPECT_FALSE(guest.vm->lift_offset);
}

TEST_F(epoch_steps_test, who_waits_for_a_pre_arm_hears_of_its_end_once) {
  const auto epoch = guest.make_epoch();
  prearm_epoch(epoch, note());
  close_epoch(*epoch, [] {});
  close_epoch(*epoch, [] {});
  EXPECT_EQ(answers, outcomes{errc::cancelled});
}

TEST_F(epoch_steps_test, an_epoch_that_never_began_is_closed_at_once_any_number_of_times) {
  const auto epoch = guest.make_epoch();
  int closed = 0;
  for (int i = 0; i < 2; ++i) close_epoch(*epoch, [&] { ++closed; });
  EXPECT_EQ(closed, 2);
}

TEST_F(epoch_steps_test, a_vm_that_is_gone_closes_all_its_epochs) {
  const auto active = guest.epoch_in(epoch_phase::active);
  const auto prearming = guest.make_epoch();
  prearm_epoch(prearming, note());
  const auto closed = close_epochs_of(*guest.vm);
  EXPECT_EQ(closed, (std::vector{active, prearming}));
  EXPECT_EQ(answers, outcomes{errc::unavailable});
  EXPECT_EQ(active->phase, epoch_phase::closed);
  EXPECT_TRUE(guest.vm->epochs.empty());
}

}  // namespace
}  // namespace coppice
