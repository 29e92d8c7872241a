// Steps of branches, pauses, writes, aborts and the disk's progress in an order chosen at random: each finished image
// is of its instant, and the guest ends up running and unprotected. The disk carries out a write only when the schedule
// says so.
//
// COPPICE_SEEDS=n in the environment: n more schedules; COPPICE_SEED=s: only that one.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

constexpr std::size_t ram_pages = 1024;
constexpr std::size_t most_branches = 4;
constexpr unsigned schedules = 12;
constexpr int actions = 120;

// What a branch has done; what it does next, advance() says.
enum class stage { prearming, prearmed, rearming, active, copying };

struct scheduled_branch {
  running_branch branch;
  stage at = stage::prearming;
  std::future<result<void>> step;  // the prearm or rearm
};

std::vector<unsigned> seeds() {
  if (const char* const only = std::getenv("COPPICE_SEED")) return {static_cast<unsigned>(std::atoll(only))};
  std::vector<unsigned> all;
  for (unsigned seed = 0; seed < schedules; ++seed) all.push_back(seed);
  const char* const more = std::getenv("COPPICE_SEEDS");
  std::random_device random;
  for (int left = more != nullptr ? std::atoi(more) : 0; left > 0; --left) all.push_back(random());
  return all;
}

class random_schedule_test : public copy_engine_test {
 protected:
  std::size_t below(std::size_t bound) { return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_); }

  static copy_session::completion answer_to(scheduled_branch& of) {
    auto answer = std::make_shared<std::promise<result<void>>>();
    of.step = answer->get_future();
    return [answer](result<void> outcome) { answer->set_value(std::move(outcome)); };
  }

  static void expect_done(scheduled_branch& of, stage next) {
    ASSERT_EQ(of.step.wait_for(patience), std::future_status::ready);
    const auto outcome = of.step.get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    of.at = next;
  }

  // One step of the branch, or half of one: what is begun may be waited for much later.
  void advance(std::size_t slot) {
    if (!slots_[slot]) {
      slots_[slot].emplace();
      slots_[slot]->branch.session = *memory->begin();
      slots_[slot]->branch.session->prearm(answer_to(*slots_[slot]));
      return;
    }
    scheduled_branch& of = *slots_[slot];
    switch (of.at) {
      case stage::prearming:
        return expect_done(of, stage::prearmed);
      case stage::prearmed:
        if (!is_paused_) return;
        of.branch.instant = vm->instant();
        of.branch.session->rearm(answer_to(of));
        of.at = stage::rearming;
        return;
      case stage::rearming:
        return expect_done(of, stage::active);
      case stage::active:
        std::memset(disk_->content(slot).data(), 0, ram_pages * page_size);
        start_copy(of.branch, *open_file(disk_->file(slot), O_RDWR));
        of.at = stage::copying;
        return;
      case stage::copying:
        return;
    }
  }

  void toggle_pause() {
    if (!is_paused_) {
      vm->pause();
    } else {
      for (auto& each : slots_) {
        if (each && each->at == stage::rearming) expect_done(*each, stage::active);
      }
      vm->resume();
    }
    is_paused_ = !is_paused_;
  }

  void abort(std::size_t slot) {
    std::promise<void> ended;
    slots_[slot]->branch.session->abort([&ended] { ended.set_value(); });
    // An abort waits for the writes that the kernel has, and those stand behind the writes of the other branches:
    // thousands, if the guest was quick.
    disk_->release();
    ASSERT_EQ(ended.get_future().wait_for(patience), std::future_status::ready);
    disk_->hold();
    if (slots_[slot]->step.valid()) {
      ASSERT_EQ(slots_[slot]->step.wait_for(patience), std::future_status::ready) << "it must be told";
    }
    slots_[slot].reset();
    ++aborted_;
  }

  bool is_finished(std::size_t slot) const {
    return slots_[slot] && slots_[slot]->at == stage::copying &&
           slots_[slot]->branch.outcome.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }

  void expect_finished(std::size_t slot) {
    running_branch& branch = slots_[slot]->branch;
    ASSERT_EQ(branch.outcome.wait_for(patience), std::future_status::ready);
    const auto outcome = branch.outcome.get();
    branch.session.reset();
    if (outcome) {
      EXPECT_EQ(vm->count_bad_pages(disk_->content(slot), branch.instant), 0U);
      ++finished_;
    } else {
      EXPECT_TRUE(is_bounce_short_) << outcome.error().message();
      EXPECT_EQ(outcome.error().code, errc::unavailable) << outcome.error().message();
      ++given_up_;
    }
    slots_[slot].reset();
  }

  void act() {
    const std::size_t slot = below(most_branches);
    switch (below(9)) {
      case 0:
        disk_->allow(below(40));
        break;
      case 1:
        if (slots_[slot] && below(3) == 0) abort(slot);
        break;
      case 2:
        ASSERT_TRUE(is_paused_ || vm->runs());
        break;
      case 3:
        toggle_pause();
        break;
      default:
        advance(slot);
    }
    for (std::size_t each = 0; each < most_branches; ++each) {
      if (is_finished(each)) expect_finished(each);
    }
  }

  void run_schedule() {
    disk_->hold();
    for (int i = 0; i < actions && !HasFatalFailure(); ++i) act();
    if (HasFatalFailure()) return;
    if (is_paused_) toggle_pause();
    for (std::size_t slot = 0; slot < most_branches; ++slot) {
      if (slots_[slot] && slots_[slot]->at != stage::copying) abort(slot);
    }
    disk_->release();
    for (std::size_t slot = 0; slot < most_branches; ++slot) {
      if (slots_[slot]) expect_finished(slot);
    }
    EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
    const auto faults = engine->stats().faults;
    ASSERT_TRUE(vm->runs());
    EXPECT_EQ(engine->stats().faults, faults) << "the guest must be unprotected";
  }

  std::mt19937 random_;
  bool is_bounce_short_ = false, is_paused_ = false;
  std::unique_ptr<stuck_disk> disk_;
  std::array<std::optional<scheduled_branch>, most_branches> slots_;
  unsigned finished_ = 0, aborted_ = 0, given_up_ = 0;
  std::uint64_t saved_ahead_ = 0;
};

TEST_F(random_schedule_test, every_image_is_of_its_instant_and_the_guest_runs_on) {
  disk_ = std::make_unique<stuck_disk>(ram_pages * page_size, most_branches);
  if (!disk_->mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  const auto all = seeds();
  for (const unsigned seed : all) {
    SCOPED_TRACE("COPPICE_SEED=" + std::to_string(seed));
    random_.seed(seed);
    is_bounce_short_ = seed % 3 == 2;
    copy_engine_options options;
    if (is_bounce_short_) {
      options.bounce_bytes = (1 + below(16)) * page_size;
      options.longest_deferral = std::chrono::milliseconds(20);
    }
    if (seed % 3 == 1) {  // slow: what the guest writes is saved ahead
      options.rates.branch_bytes_per_second = 16 * mib;
      options.hot_set_time = {};
    }
    START_OR_SKIP({.pages = ram_pages, .writers = 1 + below(4)}, options);
    run_schedule();
    if (HasFatalFailure()) return;
    saved_ahead_ += engine->stats().saved_ahead_pages;
  }
  if (all.size() < schedules) return;
  EXPECT_GE(finished_, schedules) << "the schedules must be worth something";
  EXPECT_GE(aborted_, schedules / 2);
  EXPECT_GT(saved_ahead_, 0U);
}

}  // namespace
}  // namespace coppice
