// Guests with several vCPUs that fault at once, and several guests, with little bounce memory: all that waits has its
// turn.
#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

using storm_test = copy_engine_test;

// The bulk stream gets no further than its first MiB, so nearly all of the image is captured.
constexpr copy_rates next_to_nothing{.branch_bytes_per_second = 1};

TEST_F(storm_test, a_storm_of_writers_is_captured_with_little_bounce_memory_and_each_of_them_goes_on) {
  constexpr std::size_t pages = 4096;
  START_OR_SKIP({.pages = pages, .writers = 4},
                {.bounce_bytes = 4 * page_size, .rates = next_to_nothing, .longest_deferral = patience});
  while (vm->steps() < 12 * pages) ASSERT_TRUE(vm->runs());  // nearly every page is written: no holes
  for (int i = 0; i < 3; ++i) {
    auto made = branch("image" + std::to_string(i));
    while (made.outcome.wait_for(std::chrono::seconds(0)) != std::future_status::ready) ASSERT_TRUE(vm->runs());
    expect_perfect(made);
  }
  EXPECT_GE(engine->stats().captured_pages, 3 * (pages - 2 * mib / page_size));
  EXPECT_GT(engine->stats().deferred_faults, 0U);
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

// A read of the uffd brings 64.
TEST_F(storm_test, more_faults_at_once_than_one_read_brings_are_all_served) {
  constexpr std::size_t pages = 1024, writers = 80;
  stuck_disk disk(pages * page_size);
  START_OR_SKIP({.pages = pages, .writers = writers},
                {.bounce_bytes = 4 * page_size, .rates = next_to_nothing, .longest_deferral = patience});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch("unused", *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(eventually([&] { return engine->stats().deferred_faults >= writers; })) << "all must wait";
  disk.release();
  ASSERT_TRUE(vm->runs());
  vm->pause();  // so many writers leave the copy little of two CPUs
  engine->set_rates({});
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  const auto outcome = made.outcome.get();
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(vm->count_bad_pages(disk.content(), made.instant), 0U);
}

TEST_F(storm_test, a_page_that_several_branches_need_is_captured_with_a_single_buffer) {
  START_OR_SKIP({.pages = 1024, .writers = 2},
                {.bounce_bytes = page_size, .rates = next_to_nothing, .longest_deferral = patience});
  while (vm->steps() < 12 * 1024) ASSERT_TRUE(vm->runs());
  std::vector<running_branch> branches;
  for (int i = 0; i < 3; ++i) branches.push_back(prearmed_branch("image" + std::to_string(i)));
  vm->pause();
  for (auto& each : branches) take_instant(each);
  vm->resume();
  for (auto& each : branches) start_copy(each);
  for (auto& each : branches) expect_perfect(each);
}

// Two VMs, and a disk that frees one buffer at a time.
class two_vms_test : public copy_engine_test {
 protected:
  static constexpr std::size_t pages = 4096, busy = 2048, storm_writers = 4;

  // All four buffers are the storm's, all its writers wait, and so does the other's; then buffers become free one by
  // one.
  void expect_turns(branched_guest& storm, branched_guest& other) {
    auto of_storm = branch_of_paused(storm, 0);
    auto of_other = branch_of_paused(other, 1);
    if (HasFatalFailure()) return;
    storm.vm->resume();
    ASSERT_TRUE(eventually([&] { return engine->stats().deferred_faults == storm_writers; }));
    other.vm->resume();
    ASSERT_TRUE(eventually([&] { return engine->stats().deferred_faults == storm_writers + 1; }));
    const auto before = of_other.session->progress().settled_pages;
    for (int i = 0; i < 12; ++i) {
      const auto captured = engine->stats().captured_pages;
      disk_.allow(1);
      ASSERT_TRUE(eventually([&] { return engine->stats().captured_pages > captured; }));
    }
    EXPECT_GT(of_other.session->progress().settled_pages, before) << "the storm takes every buffer that becomes free";
    disk_.release();
    engine->set_rates({});
    storm.expect_perfect_on_disk(of_storm, disk_, 0);
    other.expect_perfect_on_disk(of_other, disk_, 1);
    EXPECT_TRUE(storm.vm->runs());
    EXPECT_TRUE(other.vm->runs());
    disk_.hold();
  }

  // Its bulk stream has written page 0, of which the guest knows nothing, and then waits for its limit.
  running_branch branch_of_paused(branched_guest& guest, std::size_t file) {
    std::memset(disk_.content(file).data(), 0, pages * page_size);
    guest.vm->pause();
    guest.vm->memory()->data()[page_size / 2] = std::byte{1};
    auto made = guest.prearmed_branch("unused");
    guest.take_instant(made);
    const auto before = engine->stats().bulk_pages;
    guest.start_copy(made, *open_file(disk_.file(file), O_RDWR));
    disk_.allow(1);
    EXPECT_TRUE(eventually([&] { return engine->stats().bulk_pages > before; }));
    return made;
  }

  stuck_disk disk_{pages * page_size, 2};
};

TEST_F(two_vms_test, a_vm_whose_disk_is_stuck_leaves_bounce_memory_to_the_others) {
  if (!disk_.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  branched_guest other;
  boot({.pages = pages, .busy = busy, .writers = storm_writers});
  other.boot({.pages = pages, .busy = busy});
  start_engine({.bounce_bytes = 40 * page_size, .rates = next_to_nothing, .longest_deferral = patience});
  attach_to(*engine);
  other.attach_to(*engine);
  if (IsSkipped() || HasFatalFailure()) return;
  auto of_storm = branch_of_paused(*this, 0);
  vm->resume();
  ASSERT_TRUE(eventually([&] { return engine->stats().deferred_faults == storm_writers; })) << "all must wait";
  EXPECT_EQ(engine->stats().bounce_bytes_used, 32 * page_size);
  auto of_other = other.branch("image");
  const auto captured = engine->stats().captured_pages;
  ASSERT_TRUE(eventually([&] { return engine->stats().captured_pages > captured + 100; }))
      << "the other's pages must be captured, though a disk is stuck";
  disk_.release();
  engine->set_rates({});
  expect_perfect_on_disk(of_storm, disk_, 0);
  other.expect_perfect(of_other);
}

TEST_F(two_vms_test, a_free_buffer_goes_to_the_vms_in_turn) {
  if (!disk_.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  for (const bool storm_first : {true, false}) {
    SCOPED_TRACE(storm_first ? "the storm's VM comes first" : "the other VM comes first");
    stop();
    branched_guest other;
    if (!storm_first) other.boot({.pages = pages, .busy = busy});
    boot({.pages = pages, .busy = busy, .writers = storm_writers});
    if (storm_first) other.boot({.pages = pages, .busy = busy});
    start_engine({.bounce_bytes = 4 * page_size, .rates = next_to_nothing, .longest_deferral = patience});
    attach_to(*engine);
    other.attach_to(*engine);
    if (IsSkipped() || HasFatalFailure()) return;
    expect_turns(*this, other);
  }
}

}  // namespace
}  // namespace coppice
