// Guests with several vCPUs that fault at once, and several guests, with little bounce memory: all that waits has its
// turn.
#include "tests/copy_engine/engine_fixture.hpp"
#include "tests/support/stuck_disk.hpp"

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

}  // namespace
}  // namespace coppice
