// What the guest itself sees of a branch: its longest gap between two steps, with a limit or a bad disk, and without.
// Other work on the machine only ever makes a gap longer, so a bound is kept if it is in one of several rounds; a fault
// that waits for the limit, or for the disk, does so in each.
#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::size_t stalled_pages = 4096, busy = 1024;
constexpr int most_rounds = 10;
constexpr milliseconds slack(150);
constexpr milliseconds slow_write(600);  // well above the slack

class stall_test : public copy_engine_test {
 protected:
  // Of each the longest gap, best of the rounds.
  struct gaps {
    nanoseconds without = nanoseconds::max(), with = nanoseconds::max();
  };

  // Of the guest during `work`.
  template <class Work>
  nanoseconds longest_gap(Work work) {
    vm->take_longest_gap();
    work();
    EXPECT_TRUE(vm->runs());
    return vm->take_longest_gap();
  }

  // Rounds are made until the gap is within `bound` more than what it is without.
  template <class Without, class With>
  gaps measure(nanoseconds bound, Without without, With with) {
    gaps best;
    for (int round = 0; round < most_rounds && !HasFatalFailure(); ++round) {
      best.without = std::min(best.without, longest_gap(without));
      best.with = std::min(best.with, longest_gap(with));
      if (best.with <= best.without + bound) break;
    }
    return best;
  }

  void run_for(std::uint64_t steps) {
    for (const auto end = vm->steps() + steps; vm->steps() < end;) ASSERT_TRUE(vm->runs());
  }

  // A branch, while the guest runs.
  void copy_to(stuck_disk& disk) {
    std::memset(disk.content().data(), 0, stalled_pages * page_size);
    auto made = branch("unused", *open_file(disk.file(), O_RDWR));
    while (made.outcome.wait_for(std::chrono::seconds(0)) != std::future_status::ready) ASSERT_TRUE(vm->runs());
    expect_perfect_on_disk(made, disk);
  }

  // With so little bounce memory that captures must not wait for the limit either.
  void expect_no_longer_stall_under(const copy_rates& limits) {
    stuck_disk disk(stalled_pages * page_size);  // in memory: no real one's delays
    START_OR_SKIP({.pages = stalled_pages, .writers = 2}, {.bounce_bytes = mib, .longest_deferral = patience});
    if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
    disk.release();
    run_for(12 * stalled_pages);  // nearly every page is written: no holes
    const auto copy_at = [&](const copy_rates& rates) {
      engine->set_rates(rates);
      copy_to(disk);
    };
    const auto gap = measure(
        slack, [&] { copy_at({}); }, [&] { copy_at(limits); });
    EXPECT_LE(gap.with, gap.without + slack);
  }

  // The guest writes to as many pages as there are bounce buffers, and resumes when the first of them are being written
  // to a disk that takes so long; 0: for ever.
  void expect_no_longer_stall_with(milliseconds latency) {
    stuck_disk disk(stalled_pages * page_size);
    START_OR_SKIP({.pages = stalled_pages, .busy = busy, .writers = 2},
                  {.bounce_bytes = busy * page_size / 4 * 5});  // a VM may hold four fifths
    if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
    disk.be_slow(latency);
    const auto copy_to_disk = [&](bool bad) {
      std::memset(disk.content().data(), 0, stalled_pages * page_size);
      if (bad) disk.hold();
      const auto before = engine->stats().written_bytes;
      auto made = prearmed_branch("unused");
      run_for(4 * busy);  // these blocks are copied first
      vm->pause();
      take_instant(made);
      start_copy(made, *open_file(disk.file(), O_RDWR));
      if (bad) {
        ASSERT_TRUE(disk.wait_for_stuck_write());
      }
      vm->resume();
      run_for(12 * busy);  // nearly every page is written
      if (latency.count() > 0) {
        ASSERT_TRUE(eventually([&] { return vm->runs() && engine->stats().written_bytes > before; }));
      }
      disk.release();
      expect_perfect_on_disk(made, disk);
    };
    disk.release();
    const auto gap = measure(
        slack, [&] { copy_to_disk(false); }, [&] { copy_to_disk(true); });
    EXPECT_LE(gap.with, gap.without + slack);
    EXPECT_EQ(engine->stats().deferred_faults, 0U) << "the bounce memory suffices";
  }
};

TEST_F(stall_test, with_a_limit_of_each_branch_the_guest_stalls_no_longer) {
  expect_no_longer_stall_under({.branch_bytes_per_second = 1});
}

TEST_F(stall_test, with_a_limit_of_the_host_the_guest_stalls_no_longer) {
  expect_no_longer_stall_under({.host_bytes_per_second = 1});
}

TEST_F(stall_test, with_little_bounce_memory_the_guest_stalls_no_longer_as_long_as_the_disk_keeps_up) {
  stuck_disk disk(stalled_pages * page_size);
  START_OR_SKIP({.pages = stalled_pages, .writers = 2}, {.bounce_bytes = 4 * page_size, .longest_deferral = patience});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  disk.release();
  run_for(12 * stalled_pages);
  const auto gap = measure(
      slack, [&] { run_for(2 * stalled_pages); }, [&] { copy_to(disk); });
  EXPECT_LE(gap.with, gap.without + slack);
  EXPECT_GT(engine->stats().deferred_faults, 0U) << "there must be too little of it";
}

TEST_F(stall_test, with_a_stuck_disk_the_guest_stalls_no_longer_if_there_is_bounce_memory_for_what_it_writes) {
  expect_no_longer_stall_with(milliseconds(0));
}

TEST_F(stall_test, with_a_slow_disk_the_guest_stalls_no_longer_if_there_is_bounce_memory_for_what_it_writes) {
  expect_no_longer_stall_with(slow_write);
}

TEST_F(stall_test, with_too_little_bounce_memory_the_guest_waits_for_a_stuck_disk_no_longer_than_the_longest_deferral) {
  constexpr auto longest_deferral = copy_engine_options{}.longest_deferral;
  stuck_disk disk(stalled_pages * page_size);
  START_OR_SKIP({.pages = stalled_pages, .writers = 2}, {.bounce_bytes = 4 * page_size});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  const auto gap = measure(
      longest_deferral + slack, [&] { run_for(2 * stalled_pages); },
      [&] {
        disk.hold();
        auto made = branch("unused", *open_file(disk.file(), O_RDWR));
        run_for(2 * stalled_pages);
        disk.release();
        ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
        const auto outcome = made.outcome.get();
        ASSERT_FALSE(outcome);
        EXPECT_EQ(outcome.error().code, errc::unavailable) << outcome.error().message();
      });
  EXPECT_LE(gap.with, gap.without + longest_deferral + slack);
  EXPECT_GE(gap.with, longest_deferral) << "the guest did wait, and its record tells";
}

}  // namespace
}  // namespace coppice
