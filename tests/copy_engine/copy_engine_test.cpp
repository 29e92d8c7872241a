// The engine under one guest that writes at full speed, with one vCPU or several: every image is of its instant, and
// the guest is never left waiting.
#include <random>

#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

TEST_F(copy_engine_test, an_image_is_of_one_instant_while_the_guest_writes) {
  START_OR_SKIP({.pages = 8192, .writers = 2});
  for (int i = 0; i < 10; ++i) {
    auto made = branch("image" + std::to_string(i));
    expect_perfect(made);
    EXPECT_TRUE(vm->runs());
  }
  EXPECT_GT(engine->stats().captured_pages, 0U);
  EXPECT_GT(engine->stats().bulk_pages, 0U);
}

TEST_F(copy_engine_test, an_engine_may_be_ended_as_soon_as_it_is_made) {
  for (int i = 0; i < 300; ++i) {
    const auto made = create_copy_engine({});
    if (!made.ok()) GTEST_SKIP() << made.error().message();
  }
}

TEST_F(copy_engine_test, two_memory_regions_make_one_image) {
  START_OR_SKIP({.pages = 4100, .split = 1000, .writers = 2});  // a block lies in both, and the last one is short
  auto made = branch("image");
  expect_perfect(made);
}

TEST_F(copy_engine_test, overlapping_branches_of_one_guest_each_have_their_own_instant) {
  START_OR_SKIP({.pages = 8192, .writers = 2});
  for (int round = 0; round < 4; ++round) {
    std::vector<running_branch> branches;
    for (int i = 0; i < 4; ++i) branches.push_back(branch("image" + std::to_string(i)));
    for (auto& each : branches) expect_perfect(each);
    EXPECT_TRUE(vm->runs());
  }
}

TEST_F(copy_engine_test, a_small_bounce_pool_delays_faults_but_no_page_is_wrong) {
  START_OR_SKIP({.pages = 8192, .writers = 4}, {.bounce_bytes = 4 * page_size, .longest_deferral = patience});
  for (int i = 0; i < 5; ++i) {
    auto made = branch("image" + std::to_string(i));
    expect_perfect(made);
    EXPECT_TRUE(vm->runs());
  }
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(copy_engine_test, an_aborted_branch_leaves_the_guest_unprotected_at_every_stage) {
  START_OR_SKIP({.pages = 8192, .writers = 2});
  for (int stage = 0; stage < 4; ++stage) {
    auto session = *memory->begin();
    if (stage >= 1) {
      ASSERT_TRUE(wait_for([&](auto done) { session->prearm(std::move(done)); }));
    }
    if (stage >= 2) {
      ASSERT_TRUE(wait_for([&](auto done) { session->rearm(std::move(done)); }));
    }
    std::promise<result<copy_result>> outcome;
    if (stage >= 3)
      session->copy(make_image(dir.path() / "image"),
                    [&](result<copy_result> it) { outcome.set_value(std::move(it)); });
    wait_for_abort(*session);
    wait_for_abort(*session);  // idempotent
    if (stage >= 3) {
      auto it = outcome.get_future().get();
      if (!it) {
        EXPECT_EQ(it.error().code, errc::cancelled);
      }
    }
    session.reset();
    EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
    // Unprotected: a thousand steps without a single fault.
    const auto faults = engine->stats().faults;
    EXPECT_TRUE(vm->runs());
    EXPECT_EQ(engine->stats().faults, faults) << "stage " << stage;
  }
  auto made = branch("after");
  expect_perfect(made);
}

TEST_F(copy_engine_test, a_full_disk_fails_the_branch_and_frees_the_guest) {
  START_OR_SKIP({.pages = 8192});
  unique_fd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  auto made = branch("unused", std::move(full));
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, errc::no_space) << outcome.error().message();
  made.session.reset();
  const auto faults = engine->stats().faults;
  EXPECT_TRUE(vm->runs());
  EXPECT_EQ(engine->stats().faults, faults);
}

TEST_F(copy_engine_test, a_stuck_disk_holds_up_the_copy_and_not_the_guest) {
  stuck_disk disk(8192 * page_size);
  START_OR_SKIP({.pages = 8192});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch("unused", *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(vm->runs());
  EXPECT_EQ(made.outcome.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(vm->count_bad_pages(disk.content(), made.instant), 0U);
}

// Its slices are lifted as they are copied; here the first one may be under way when the next branch begins.
TEST_F(copy_engine_test, two_branches_given_up_while_a_slice_is_lifted_leave_nothing_protected) {
  constexpr std::size_t slice = 2048, pages = 2 * slice;
  stuck_disk disk(pages * page_size);
  START_OR_SKIP({.pages = pages});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  while (vm->steps() < 4 * pages) ASSERT_TRUE(vm->runs());
  vm->pause();
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    disk.hold();
    auto first = prearmed_branch("unused");
    take_instant(first);
    start_copy(first, *open_file(disk.file(), O_RDWR));
    const auto spin = [](std::chrono::microseconds time) {
      for (const auto end = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < end;) {
      }
    };
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (first.session->progress().settled_pages < slice) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      disk.allow(1);
      spin(std::chrono::microseconds(100));
    }
    spin(std::chrono::microseconds(random() % 300));
    auto second = *memory->begin();
    std::promise<result<void>> prearmed;
    std::promise<void> ended;
    second->prearm([&](result<void> outcome) { prearmed.set_value(std::move(outcome)); });
    first.session->abort([&] { ended.set_value(); });
    ASSERT_EQ(prearmed.get_future().wait_for(patience), std::future_status::ready);
    wait_for_abort(*second);
    disk.release();
    ASSERT_EQ(ended.get_future().wait_for(patience), std::future_status::ready);
    for (std::size_t page = 0; page < pages; ++page) ASSERT_FALSE(vm->is_protected(page)) << page;
  }
  vm->resume();
}

TEST_F(copy_engine_test, a_branch_given_up_for_its_disk_waits_for_no_limit) {
  stuck_disk disk(8192 * page_size);
  START_OR_SKIP({.pages = 8192}, {.bounce_bytes = 4 * page_size,
                                  .rates = {.branch_bytes_per_second = 1},
                                  .longest_deferral = std::chrono::milliseconds(20)});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = prearmed_branch("unused");
  vm->pause();
  take_instant(made);
  start_copy(made, *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());
  ASSERT_TRUE(eventually([&] { return made.session->progress().waits_for_limit; }));
  vm->resume();
  ASSERT_TRUE(vm->runs()) << "it is given up";
  EXPECT_TRUE(eventually([&] { return !made.session->progress().waits_for_limit; }));
  EXPECT_NE(made.outcome.wait_for(std::chrono::seconds(0)), std::future_status::ready) << "its writes are stuck";
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  EXPECT_EQ(made.outcome.get().error().code, errc::unavailable);
}

TEST_F(copy_engine_test, a_disk_that_the_guest_would_have_to_wait_for_costs_the_branch_and_not_the_guest) {
  stuck_disk disk(8192 * page_size);
  START_OR_SKIP({.pages = 8192}, {.bounce_bytes = 4 * page_size, .longest_deferral = std::chrono::milliseconds(20)});
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = prearmed_branch("unused");
  vm->pause();  // until the disk is stuck: before, the branch could be given up for a copy thread that is not served
  take_instant(made);
  start_copy(made, *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());
  vm->resume();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(vm->runs());
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (bool unprotected = false; !unprotected;) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the guest must be unprotected, though the disk is stuck";
    const auto faults = engine->stats().faults;
    ASSERT_TRUE(vm->runs());
    unprotected = engine->stats().faults == faults;
  }
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, errc::unavailable) << outcome.error().message();
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

// At a byte a second the copy gets no further than its first MiB.
TEST_F(copy_engine_test, what_the_guest_wrote_to_is_copied_first_and_then_faults_once_and_not_page_by_page) {
  constexpr std::size_t pages = 4096, busy = mib / page_size;
  START_OR_SKIP({.pages = pages, .busy = busy}, {.rates = {.branch_bytes_per_second = 1}});
  while (vm->steps() < 20 * busy) ASSERT_TRUE(vm->runs());  // every busy page is written
  std::memset(vm->memory()->data(), 1, (pages - busy) * page_size);
  auto made = prearmed_branch("image");
  ASSERT_TRUE(vm->runs());  // and touches pages
  vm->pause();
  take_instant(made);
  start_copy(made);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (made.session->progress().settled_pages < busy) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  const auto image = *open_file(made.image, O_RDONLY);
  EXPECT_EQ(::lseek(image.get(), 0, SEEK_DATA), static_cast<off_t>((pages - busy) * page_size));
  const auto faults = engine->stats().faults;
  vm->resume();
  for (const auto end = vm->steps() + 20 * busy; vm->steps() < end;) ASSERT_TRUE(vm->runs());
  EXPECT_EQ(made.session->progress().settled_pages, busy);
  made.session.reset();  // through the fault thread: it has counted what it served
  EXPECT_EQ(engine->stats().faults, faults + 1);
}

TEST_F(copy_engine_test, what_is_copied_is_lifted_while_the_rest_is_copied) {
  constexpr std::size_t pages = 8192, last = pages - 1;  // four slices, a second each
  START_OR_SKIP({.pages = pages, .split = 100}, {.rates = {.branch_bytes_per_second = 8 * mib}});
  while (vm->steps() < 12 * pages) ASSERT_TRUE(vm->runs());  // nearly every page is written
  vm->pause();                                               // before the pre-arm: no block comes before the others
  auto first = prearmed_branch("first");
  take_instant(first);
  EXPECT_TRUE(vm->is_protected(0));
  start_copy(first);
  ASSERT_TRUE(eventually([&] { return !vm->is_protected(0); }));
  EXPECT_TRUE(vm->is_protected(last));
  engine->set_rates({.branch_bytes_per_second = 1});

  // Another branch needs all of it protected. Without that one it may be lifted again.
  auto second = prearmed_branch("second");
  EXPECT_TRUE(vm->is_protected(0));
  take_instant(second);
  wait_for_abort(*second.session);
  ASSERT_TRUE(eventually([&] { return !vm->is_protected(0); }));
  EXPECT_TRUE(vm->is_protected(last));

  // Given up before its instant: the same.
  auto third = prearmed_branch("third");
  EXPECT_TRUE(vm->is_protected(0));
  wait_for_abort(*third.session);
  ASSERT_TRUE(eventually([&] { return !vm->is_protected(0); }));
  EXPECT_TRUE(vm->is_protected(last));

  engine->set_rates({});
  expect_perfect(first);
  for (std::size_t page = 0; page < pages; ++page) ASSERT_FALSE(vm->is_protected(page));
  vm->resume();
  EXPECT_TRUE(vm->runs());
}

TEST_F(copy_engine_test, a_limit_of_a_branch_is_kept_and_no_page_is_wrong) {
  START_OR_SKIP({.pages = 8192}, {.rates = {.branch_bytes_per_second = 64 * mib}});
  auto made = branch("image");  // of a guest that writes
  expect_perfect(made);
  expect_limit(64 * mib, 1);
}

TEST_F(copy_engine_test, a_limit_of_the_host_is_shared_by_all_branches) {
  START_OR_SKIP({.pages = 4096}, {.rates = {.host_bytes_per_second = 64 * mib}});
  std::vector<running_branch> branches;
  for (int i = 0; i < 3; ++i) branches.push_back(branch("image" + std::to_string(i)));
  for (auto& each : branches) expect_perfect(each);
  expect_limit(64 * mib, 3);
}

TEST_F(copy_engine_test, a_limit_of_the_host_starves_no_branch) {
  constexpr std::size_t pages = 8192;
  START_OR_SKIP({.pages = pages}, {.rates = {.host_bytes_per_second = 1}});
  while (vm->steps() < 12 * pages) ASSERT_TRUE(vm->runs());  // nearly every page is written
  auto first = prearmed_branch("first"), second = prearmed_branch("second");
  vm->pause();  // until one is copied: captures would settle pages that no limit holds up
  take_instant(first);
  take_instant(second);
  start_copy(first);
  start_copy(second);
  engine->set_rates({.host_bytes_per_second = 32 * mib});  // both begin
  ASSERT_EQ(first.outcome.wait_for(patience), std::future_status::ready);
  EXPECT_GE(second.session->progress().settled_pages, pages / 2) << "the second must have had its share";
  vm->resume();
  expect_perfect(first);
  expect_perfect(second);
}

// At a byte a second, either limit alone would have the copy wait for days.
TEST_F(copy_engine_test, a_limit_that_is_lifted_frees_copies_that_wait_for_it) {
  for (const copy_rates& rates : {copy_rates{.host_bytes_per_second = 1}, copy_rates{.branch_bytes_per_second = 1}}) {
    START_OR_SKIP({.pages = 8192}, {.rates = rates});
    auto made = branch("image" + std::to_string(rates.branch_bytes_per_second));
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (engine->stats().written_bytes == 0) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    engine->set_rates({});
    expect_perfect(made);
    made.session.reset();
    memory.reset();
  }
}

TEST_F(copy_engine_test, a_limit_that_is_set_later_is_kept) {
  START_OR_SKIP({.pages = 8192});
  engine->set_rates({.host_bytes_per_second = 64 * mib, .branch_bytes_per_second = 64 * mib});
  expect_limit(64 * mib, 1);
}

TEST_F(copy_engine_test, a_guest_that_dies_fails_its_branches) {
  START_OR_SKIP({.pages = 65536});
  auto session = *memory->begin();
  ASSERT_TRUE(wait_for([&](auto done) { session->prearm(std::move(done)); }));
  vm->kill();
  memory.reset();
  auto rearmed = wait_for([&](auto done) { session->rearm(std::move(done)); });
  EXPECT_FALSE(rearmed);
  wait_for_abort(*session);
}

TEST_F(copy_engine_test, steps_out_of_order_are_refused) {
  START_OR_SKIP({.pages = 1024});
  auto session = *memory->begin();
  EXPECT_EQ(wait_for([&](auto done) { session->rearm(std::move(done)); }).error().code, errc::internal);
  std::promise<result<copy_result>> outcome;
  session->copy(make_image(dir.path() / "image"), [&](result<copy_result> it) { outcome.set_value(std::move(it)); });
  EXPECT_EQ(outcome.get_future().get().error().code, errc::internal);
}

TEST_F(copy_engine_test, too_many_overlapping_branches_are_refused) {
  START_OR_SKIP({.pages = 1024}, {.max_epochs_per_vm = 2});
  auto one = *memory->begin();
  auto two = *memory->begin();
  auto three = memory->begin();
  ASSERT_FALSE(three);
  EXPECT_EQ(three.error().code, errc::unavailable);
  one.reset();
  EXPECT_TRUE(memory->begin());
}

TEST_F(copy_engine_test, regions_that_do_not_match_the_memory_are_refused) {
  boot({.pages = 1024});
  engine = *create_copy_engine({});
  auto handover = vm->take_handover();
  if (!handover.uffd) GTEST_SKIP() << "no userfaultfd here";
  handover.regions[0].size -= page_size;
  auto attached = engine->attach(std::move(handover), vm->memory());
  ASSERT_FALSE(attached);
  EXPECT_EQ(attached.error().code, errc::invalid_argument);
}

}  // namespace
}  // namespace coppice
