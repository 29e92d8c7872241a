// Branches that begin, are written, and end at moments chosen at random: whatever the order, each finished image is of
// its instant, and the guest ends up running and unprotected. The disk carries out a write only when the schedule says
// so.
#include <algorithm>
#include <random>

#include "tests/copy_engine/engine_fixture.hpp"
#include "tests/support/stuck_disk.hpp"

namespace coppice {
namespace {

constexpr std::size_t pages = 1024;
constexpr std::size_t most_branches = 4;
constexpr int schedules = 12;
constexpr int actions = 60;

class random_schedule_test : public copy_engine_test {
 protected:
  using generator = std::mt19937;

  static std::size_t below(generator& random, std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
  }

  void begin(std::size_t slot) {
    std::ranges::fill(disk_->content(slot), std::byte{0});
    branches_[slot].emplace(branch("unused", *open_file(disk_->file(slot), O_RDWR)));
  }

  void abort(std::size_t slot) {
    std::promise<void> ended;
    branches_[slot]->session->abort([&ended] { ended.set_value(); });
    // An abort waits for the writes that the kernel has, and those stand behind the writes of the other branches:
    // thousands, if the guest was quick.
    disk_->release();
    ASSERT_EQ(ended.get_future().wait_for(patience), std::future_status::ready);
    disk_->hold();
    branches_[slot].reset();
    ++aborted_;
  }

  void expect_finished(std::size_t slot) {
    ASSERT_EQ(branches_[slot]->outcome.wait_for(patience), std::future_status::ready);
    const auto outcome = branches_[slot]->outcome.get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    branches_[slot]->session.reset();
    EXPECT_EQ(vm->count_bad_pages(disk_->content(slot), branches_[slot]->instant), 0U);
    branches_[slot].reset();
    ++finished_;
  }

  void act(generator& random) {
    const std::size_t slot = below(random, most_branches);
    switch (below(random, 4)) {
      case 0:
        if (!branches_[slot]) begin(slot);
        break;
      case 1:
        disk_->allow(below(random, 40));
        break;
      case 2:
        if (branches_[slot] && below(random, 3) == 0) abort(slot);
        break;
      case 3:
        ASSERT_TRUE(vm->runs());
        break;
    }
    for (std::size_t each = 0; each < most_branches; ++each) {
      if (branches_[each] && branches_[each]->outcome.wait_for(std::chrono::seconds(0)) == std::future_status::ready)
        expect_finished(each);
    }
  }

  std::unique_ptr<stuck_disk> disk_;
  std::array<std::optional<running_branch>, most_branches> branches_;
  int finished_ = 0, aborted_ = 0;
};

TEST_F(random_schedule_test, every_image_is_of_its_instant_and_the_guest_runs_on) {
  disk_ = std::make_unique<stuck_disk>(pages * page_size, most_branches);
  START_OR_SKIP({.pages = pages});
  if (!disk_->mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  for (int seed = 0; seed < schedules; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    disk_->hold();
    generator random(static_cast<generator::result_type>(seed));
    for (int i = 0; i < actions && !HasFatalFailure(); ++i) act(random);
    disk_->release();
    for (std::size_t slot = 0; slot < most_branches; ++slot) {
      if (branches_[slot]) expect_finished(slot);
    }
    if (HasFatalFailure()) return;
    EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
    const auto faults = engine->stats().faults;
    ASSERT_TRUE(vm->runs());
    EXPECT_EQ(engine->stats().faults, faults) << "the guest must be unprotected";
  }
  EXPECT_GE(finished_, schedules) << "the schedules must be worth something";
  EXPECT_GE(aborted_, schedules / 2);
}

}  // namespace
}  // namespace coppice
