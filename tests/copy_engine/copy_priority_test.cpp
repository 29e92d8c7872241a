#include "copy_engine/copy_priority.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include "copy_engine/cpu_bounds.hpp"
#include "tests/copy_engine/busy_cpus.hpp"

namespace coppice {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// In a thread of its own: a policy can't be left without the right to.
void in_thread(const std::function<void()>& work) {
  std::thread(work).join();
}

bool may_leave_idle_policy() {
  bool may = false;
  in_thread([&may] { may = copy_priority().gives_way(); });
  return may;
}

#define NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE \
  if (!may_leave_idle_policy()) GTEST_SKIP() << "needs CAP_SYS_NICE or an RLIMIT_NICE of 15"

TEST(copy_priority_test, it_gives_way_and_keeps_its_nice_value) {
  NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE;
  in_thread([] {
    copy_priority priority;
    EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 5);
  });
}

constexpr milliseconds window{100};
constexpr run_time nothing{};

TEST(copy_priority_test, who_gets_less_than_a_sixteenth_competes_until_three_quarters_are_there) {
  EXPECT_TRUE(should_give_way(true, {milliseconds(5), milliseconds(75)}, nothing, window));
  EXPECT_FALSE(should_give_way(true, {milliseconds(4), milliseconds(76)}, nothing, window));
  EXPECT_FALSE(should_give_way(false, {milliseconds(60), milliseconds(20)}, nothing, window));
  EXPECT_TRUE(should_give_way(false, {milliseconds(61), milliseconds(19)}, nothing, window));
}

TEST(copy_priority_test, its_workers_may_starve_alone) {
  const run_time own{milliseconds(70), milliseconds(10)};
  EXPECT_TRUE(should_give_way(true, own, {milliseconds(5), milliseconds(75)}, window));
  EXPECT_FALSE(should_give_way(true, own, {milliseconds(4), milliseconds(76)}, window));
}

TEST(copy_priority_test, threads_that_wait_for_each_other_do_not_starve) {
  EXPECT_TRUE(should_give_way(true, nothing, {milliseconds(7), milliseconds(293)}, window));
  EXPECT_FALSE(should_give_way(true, nothing, {milliseconds(6), milliseconds(294)}, window));
  EXPECT_TRUE(
      should_give_way(false, {milliseconds(50), milliseconds(50)}, {milliseconds(26), milliseconds(74)}, window));
}

TEST(copy_priority_test, a_time_in_which_hardly_a_cpu_was_needed_changes_nothing) {
  EXPECT_TRUE(should_give_way(true, {milliseconds(0), milliseconds(12)}, nothing, window));
  EXPECT_FALSE(should_give_way(true, {milliseconds(0), milliseconds(13)}, nothing, window));
  EXPECT_FALSE(should_give_way(false, {milliseconds(12), milliseconds(0)}, nothing, window));
  EXPECT_TRUE(should_give_way(false, {milliseconds(13), milliseconds(0)}, nothing, window));
}

TEST(copy_priority_test, where_all_cpus_are_busy_it_does_not_starve) {
  NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE;
  const busy_cpus others;
  in_thread([] {
    copy_priority priority;
    const auto give_up_at = std::chrono::steady_clock::now() + seconds(60);
    while (priority.gives_way()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up_at);
      priority.reconsider(std::chrono::steady_clock::now());
    }
    EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
    priority.hurry(true);
    priority.reconsider(std::chrono::steady_clock::now() + seconds(1));
    EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 5);
    priority.hurry(false);
    EXPECT_NE(::sched_getscheduler(0), SCHED_BATCH);
  });
}

TEST(copy_priority_test, who_hurries_leaves_its_cpu_to_who_is_woken_there) {
  NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE;
  in_thread([] {
    copy_priority priority;
    priority.hurry(true);
    EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 19);
    priority.hurry(false);
    EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 5);
  });
}

TEST(copy_priority_test, who_hurries_learns_that_another_wants_its_cpu) {
  NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE;
  in_thread([] {
    cpu_bounds bounds;
    const auto here = bounds.stay_here();
    if (!here) GTEST_SKIP() << "needs two CPUs";
    copy_priority priority;
    const busy_cpus others;  // bound to this one, as they are started from here
    const auto is_crowded_before = [&](std::chrono::steady_clock::time_point deadline) {
      while (std::chrono::steady_clock::now() < deadline) {
        if (priority.is_crowded(std::chrono::steady_clock::now())) return true;
      }
      return false;
    };
    EXPECT_FALSE(is_crowded_before(std::chrono::steady_clock::now() + milliseconds(20))) << "it does not hurry";
    priority.hurry(true);
    EXPECT_TRUE(is_crowded_before(std::chrono::steady_clock::now() + seconds(60)));
  });
}

// A worker is known by its name, so one is made that computes all the time.
TEST(copy_priority_test, while_it_hurries_its_workers_do_not_starve) {
  NEEDS_THE_RIGHT_TO_LEAVE_SCHED_IDLE;
  const busy_cpus others;
  in_thread([] {
    copy_priority priority;
    priority.hurry(true);
    std::promise<pid_t> ready;
    std::atomic<bool> stop = false;
    std::thread working([&, name = "iou-wrk-" + std::to_string(::gettid())] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      ready.set_value(::gettid());
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
    ::setpriority(PRIO_PROCESS, 0, -15);  // it is not the one that starves
    const pid_t worker = ready.get_future().get();
    const auto give_up_at = std::chrono::steady_clock::now() + seconds(60);
    while (priority.gives_way() && std::chrono::steady_clock::now() < give_up_at) {
      priority.reconsider(std::chrono::steady_clock::now());
    }
    EXPECT_FALSE(priority.gives_way());
    EXPECT_EQ(::sched_getscheduler(worker), SCHED_OTHER);
    EXPECT_EQ(::getpriority(PRIO_PROCESS, static_cast<id_t>(worker)), 5);
    EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
    stop = true;
    working.join();
  });
}

}  // namespace
}  // namespace coppice
