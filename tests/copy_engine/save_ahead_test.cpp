// A guest whose writes meet protected pages all the time: its RAM is saved ahead of the disk. At a byte a second the
// copy gets no further than its first MiB.
#include <sched.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "tests/copy_engine/busy_cpus.hpp"
#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

constexpr std::size_t guest_pages = 8192;  // 32 MiB. The guest writes to all of them, until told otherwise
// Half of it, which is for what is saved ahead, is not enough for all of RAM; four fifths, which a VM may hold, are, so
// that the guest never waits for it, however slow the disk.
constexpr std::size_t scarce_bounce_pages = guest_pages / 2 * 3;

pid_t thread_called(const std::string& wanted) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    if (name == wanted) return static_cast<pid_t>(std::stol(entry.path().filename()));
  }
  return 0;
}

cpu_set_t cpus_of(const std::string& thread) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  EXPECT_EQ(::sched_getaffinity(thread_called(thread), sizeof cpus, &cpus), 0);
  return cpus;
}

class save_ahead_test : public copy_engine_test {
 protected:
  void start_with_written_ram(copy_engine_options options, const synthetic_shape& shape = {.pages = guest_pages}) {
    options.hot_set_time = {};
    START_OR_SKIP(shape, options);
    // No page is all zero: each holds something in a word that no writer uses.
    for (std::size_t page = 0; page < guest_pages; ++page) {
      vm->memory()->data()[page * page_size + page_size / 2] = std::byte{1};
    }
  }
  running_branch branch_of_paused_guest() {
    auto made = prearmed_branch("image");
    EXPECT_TRUE(vm->runs());  // and touches pages
    vm->pause();
    take_instant(made);
    start_copy(made);
    return made;
  }
  bool is_any_protected(std::size_t first = 0) const {
    for (std::size_t page = first; page < guest_pages; ++page)
      if (vm->is_protected(page)) return true;
    return false;
  }
  // More faults than it takes to save all of RAM; then the guest stands still until so many pages are saved.
  running_branch branch_saved_ahead(std::size_t saved) {
    auto made = branch_of_paused_guest();
    vm->run_for(1000);
    EXPECT_TRUE(eventually([&] { return engine->stats().saved_ahead_pages > saved; }));
    return made;
  }
  // Of a guest that has taken `steps` at random since its instant, hardly two of them to neighbours, and stands still:
  // what they captured is there when the copy starts.
  running_branch branch_with_captures(std::size_t steps) {
    vm->pause();
    auto made = prearmed_branch("unused");
    take_instant(made);
    vm->run_for(steps);
    EXPECT_GT(engine->stats().captured_pages, steps / 2);
    return made;
  }
  // Without a fault of the guest, which stands still until then.
  bool all_is_freed() {
    if (!eventually([this] { return !is_any_protected(); })) return false;
    vm->resume();
    return vm->runs();
  }
};

TEST_F(save_ahead_test, the_guest_is_free_long_before_the_disk_has_its_pages) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_saved_ahead(guest_pages / 2);
  ASSERT_TRUE(all_is_freed());
  EXPECT_LT(made.session->progress().settled_pages, guest_pages / 2);
  EXPECT_GT(engine->stats().bounce_bytes_used, guest_pages * page_size / 2);
  engine->set_rates({});
  expect_perfect(made);
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(save_ahead_test, a_branch_that_is_given_up_gives_its_memory_back) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_saved_ahead(guest_pages / 2);
  ASSERT_TRUE(all_is_freed());
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(save_ahead_test, half_of_the_bounce_memory_is_left_for_captures) {
  start_with_written_ram({.bounce_bytes = scarce_bounce_pages * page_size, .rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_saved_ahead(guest_pages / 4);
  EXPECT_TRUE(is_any_protected());
  vm->resume();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(vm->runs());
    EXPECT_LE(engine->stats().saved_ahead_pages, scarce_bounce_pages / 2);
  }
  engine->set_rates({});
  expect_perfect(made);
}

TEST_F(save_ahead_test, a_guest_that_does_not_write_is_copied_from_its_ram) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 32 * mib}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = prearmed_branch("image");
  vm->pause();
  take_instant(made);
  start_copy(made);
  while (made.outcome.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    ASSERT_EQ(engine->stats().bounce_bytes_used, 0U);
  }
  expect_perfect(made);
  EXPECT_EQ(engine->stats().saved_ahead_pages, 0U);
  vm->resume();
}

// A fault of it captures up to 16 pages: each alone would be enough to save ahead.
TEST_F(save_ahead_test, a_guest_that_writes_sequentially_is_not_saved_ahead) {
  constexpr std::size_t few = 512;
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}},
                         {.pages = guest_pages, .busy = few, .sequential = true});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_of_paused_guest();
  vm->resume();
  ASSERT_TRUE(eventually([this] { return vm->runs() && !is_any_protected(guest_pages - few); }));
  EXPECT_GT(engine->stats().captured_pages, 200U);
  EXPECT_EQ(engine->stats().saved_ahead_pages, 0U);
  engine->set_rates({});
  expect_perfect(made);
}

TEST_F(save_ahead_test, a_copy_that_hurries_leaves_the_cpu_that_another_wants) {
  start_with_written_ram({.bounce_bytes = scarce_bounce_pages * page_size, .rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  const cpu_set_t all = cpus_of("coppice-fault");
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs";
  auto made = branch_saved_ahead(0);
  cpu_set_t first;
  ASSERT_TRUE(eventually([&first] {
    first = cpus_of("coppice-copy");
    return CPU_COUNT(&first) == 1;
  }));
  std::atomic<bool> stop = false;
  std::thread other([&] {
    EXPECT_EQ(::sched_setaffinity(0, sizeof first, &first), 0);
    while (!stop.load(std::memory_order_relaxed)) {
    }
  });
  engine->set_rates({.branch_bytes_per_second = 16 * mib});
  EXPECT_TRUE(eventually([&first] {
    const cpu_set_t now = cpus_of("coppice-copy");
    return CPU_COUNT(&now) == 1 && !CPU_EQUAL(&now, &first);
  }));
  stop = true;
  other.join();
  engine->set_rates({});
  expect_perfect(made);
  vm->resume();
}

TEST_F(save_ahead_test, where_all_cpus_are_busy_what_is_saved_is_written) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_saved_ahead(guest_pages / 2);
  ASSERT_TRUE(all_is_freed());
  const busy_cpus others;
  engine->set_rates({});
  expect_perfect(made);
}

TEST_F(save_ahead_test, copy_and_fault_thread_run_apart_until_the_copy_catches_up) {
  start_with_written_ram({.bounce_bytes = scarce_bounce_pages * page_size, .rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  const cpu_set_t all = cpus_of("coppice-fault");
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs";
  auto made = branch_saved_ahead(0);
  ASSERT_TRUE(eventually([&] {
    const cpu_set_t copier = cpus_of("coppice-copy"), faults = cpus_of("coppice-fault");
    cpu_set_t both;
    CPU_AND(&both, &copier, &faults);
    return CPU_COUNT(&copier) == 1 && CPU_COUNT(&faults) == CPU_COUNT(&all) - 1 && CPU_COUNT(&both) == 0;
  }));
  EXPECT_EQ(::sched_getscheduler(thread_called("coppice-copy")), SCHED_BATCH);
  vm->resume();
  engine->set_rates({});
  expect_perfect(made);
  ASSERT_TRUE(eventually([&] {
    const cpu_set_t copier = cpus_of("coppice-copy"), faults = cpus_of("coppice-fault");
    return CPU_EQUAL(&copier, &all) && CPU_EQUAL(&faults, &all);
  }));
  EXPECT_NE(::sched_getscheduler(thread_called("coppice-copy")), SCHED_BATCH);
}

TEST_F(save_ahead_test, a_branch_that_is_given_up_hurries_nobody_though_its_disk_is_stuck) {
  stuck_disk disk(guest_pages * page_size);
  start_with_written_ram({.bounce_bytes = 4 * mib, .longest_deferral = std::chrono::milliseconds(20)});
  if (IsSkipped() || HasFatalFailure()) return;
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  const cpu_set_t all = cpus_of("coppice-fault");
  vm->pause();
  auto made = prearmed_branch("unused");
  take_instant(made);
  start_copy(made, *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());  // before the guest writes: a busy host may not copy anything until then
  vm->resume();
  EXPECT_TRUE(vm->runs()) << "it is given up before the guest waits for long";
  EXPECT_TRUE(eventually([&] {
    const cpu_set_t copier = cpus_of("coppice-copy"), faults = cpus_of("coppice-fault");
    return CPU_EQUAL(&copier, &all) && CPU_EQUAL(&faults, &all) && !is_any_protected() &&
           ::sched_getscheduler(thread_called("coppice-copy")) != SCHED_BATCH;
  }));
  EXPECT_NE(made.outcome.wait_for(std::chrono::seconds(0)), std::future_status::ready) << "its writes are stuck";
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  EXPECT_EQ(made.outcome.get().error().code, errc::unavailable);
}

// A guest that writes at random leaves captures of single pages: here more than the disk lets through, and too many to
// wait for their blocks.
TEST_F(save_ahead_test, writes_of_captures_do_not_hold_up_those_of_ram) {
  constexpr std::size_t steps = 600;
  stuck_disk disk(guest_pages * page_size);
  start_with_written_ram({.bounce_bytes = 2 * steps * page_size}, {.pages = guest_pages, .busy = guest_pages / 2});
  if (IsSkipped() || HasFatalFailure()) return;
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch_with_captures(steps);
  start_copy(made, *open_file(disk.file(), O_RDWR));
  disk.allow(steps / 2);  // in the order in which they come
  EXPECT_TRUE(eventually([&] { return engine->stats().bulk_pages > 0; }));
  EXPECT_TRUE(disk.wait_for_stuck_write()) << "so many would have been enough for all of RAM";
  disk.release();
  expect_perfect_on_disk(made, disk);
  vm->resume();
}

// With the pages around them: 32 MiB in writes of at most 128 KiB, as FUSE makes them, not a write a page.
TEST_F(save_ahead_test, captures_are_written_with_the_blocks_that_they_are_in) {
  constexpr std::size_t steps = 600;
  stuck_disk disk(guest_pages * page_size);
  start_with_written_ram({}, {.pages = guest_pages, .busy = guest_pages / 2});
  if (IsSkipped() || HasFatalFailure()) return;
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch_with_captures(steps);
  disk.allow(guest_pages / 32 + 8);
  start_copy(made, *open_file(disk.file(), O_RDWR));
  expect_perfect_on_disk(made, disk);
  disk.release();
  vm->resume();
}

}  // namespace
}  // namespace coppice
