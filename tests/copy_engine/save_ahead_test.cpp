// A guest whose writes meet protected pages all the time: its RAM is saved ahead of the disk. At a byte a second the
// copy gets no further than its first MiB.
#include <sched.h>

#include <fstream>

#include "tests/copy_engine/busy_cpus.hpp"
#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

constexpr std::size_t pages = 8192, busy = 1024;  // 32 MiB, and what the guest writes to

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
  void start_with_written_ram(copy_engine_options options) {
    options.hot_set_time = {};
    START_OR_SKIP({.pages = pages, .busy = busy}, options);
    while (vm->steps() < 20 * busy) ASSERT_TRUE(vm->runs());  // every busy page is written
    // All others hold something, in words that no writer uses.
    for (std::size_t page = 0; page < pages - busy; ++page) {
      vm->memory()->data()[page * page_size + page_size / 2] = std::byte{1};
    }
  }
  running_branch branch_of_running_guest() {
    auto made = prearmed_branch("image");
    EXPECT_TRUE(vm->runs());  // and touches pages
    vm->pause();
    take_instant(made);
    start_copy(made);
    vm->resume();
    return made;
  }
  bool is_any_protected(std::size_t end = pages) const {
    for (std::size_t page = 0; page < end; ++page)
      if (vm->is_protected(page)) return true;
    return false;
  }
  bool all_is_freed() {
    return eventually([this] { return vm->runs() && !is_any_protected(); });
  }
};

TEST_F(save_ahead_test, the_guest_is_free_long_before_the_disk_has_its_pages) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_of_running_guest();
  ASSERT_TRUE(all_is_freed());
  EXPECT_LT(made.session->progress().settled_pages, pages / 2);
  EXPECT_GT(engine->stats().bounce_bytes_used, pages * page_size / 2);
  engine->set_rates({});
  expect_perfect(made);
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(save_ahead_test, a_branch_that_is_given_up_gives_its_memory_back) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_of_running_guest();
  ASSERT_TRUE(all_is_freed());
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(save_ahead_test, half_of_the_bounce_memory_is_left_for_captures) {
  constexpr std::uint64_t bounce = 16 * mib;
  start_with_written_ram({.bounce_bytes = bounce, .rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_of_running_guest();
  // Three or four buffers of 2 MiB, by how many pages are captured: five would be more than half.
  ASSERT_TRUE(eventually([&] { return vm->runs() && engine->stats().bounce_bytes_used >= 6 * mib; }));
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(vm->runs());
    EXPECT_LE(engine->stats().bounce_bytes_used, bounce / 2 + busy * page_size);
  }
  EXPECT_TRUE(is_any_protected(pages - busy));
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

TEST_F(save_ahead_test, where_all_cpus_are_busy_what_is_saved_is_written) {
  start_with_written_ram({.rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  auto made = branch_of_running_guest();
  ASSERT_TRUE(all_is_freed());
  const busy_cpus others;
  engine->set_rates({});
  expect_perfect(made);
}

TEST_F(save_ahead_test, copy_and_fault_thread_run_apart_until_the_copy_catches_up) {
  start_with_written_ram({.bounce_bytes = 16 * mib, .rates = {.branch_bytes_per_second = 1}});
  if (IsSkipped() || HasFatalFailure()) return;
  const cpu_set_t all = cpus_of("coppice-fault");
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs";
  auto made = branch_of_running_guest();
  ASSERT_TRUE(eventually([&] {
    const cpu_set_t copier = cpus_of("coppice-copy"), faults = cpus_of("coppice-fault");
    cpu_set_t both;
    CPU_AND(&both, &copier, &faults);
    return vm->runs() && CPU_COUNT(&copier) == 1 && CPU_COUNT(&faults) == CPU_COUNT(&all) - 1 && CPU_COUNT(&both) == 0;
  }));
  EXPECT_EQ(::sched_getscheduler(thread_called("coppice-copy")), SCHED_BATCH);
  engine->set_rates({});
  expect_perfect(made);
  ASSERT_TRUE(eventually([&] {
    const cpu_set_t copier = cpus_of("coppice-copy"), faults = cpus_of("coppice-fault");
    return CPU_EQUAL(&copier, &all) && CPU_EQUAL(&faults, &all);
  }));
  EXPECT_NE(::sched_getscheduler(thread_called("coppice-copy")), SCHED_BATCH);
}

}  // namespace
}  // namespace coppice
