#include "copy_engine/copy_priority.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

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

TEST(copy_priority_test, who_gets_less_than_a_quarter_competes_until_three_quarters_are_there) {
  EXPECT_TRUE(should_give_way(true, {milliseconds(25), milliseconds(75)}));
  EXPECT_FALSE(should_give_way(true, {milliseconds(24), milliseconds(76)}));
  EXPECT_FALSE(should_give_way(false, {milliseconds(75), milliseconds(25)}));
  EXPECT_TRUE(should_give_way(false, {milliseconds(76), milliseconds(24)}));
}

TEST(copy_priority_test, what_is_too_short_to_judge_by_changes_nothing) {
  EXPECT_TRUE(should_give_way(true, {milliseconds(0), milliseconds(4)}));
  EXPECT_FALSE(should_give_way(false, {milliseconds(4), milliseconds(0)}));
}

// Threads that compute, two a CPU, until this goes.
class busy_cpus {
 public:
  busy_cpus() {
    for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i)
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
  }
  ~busy_cpus() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

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
  });
}

}  // namespace
}  // namespace coppice
