#include "copy_engine/cpu_bounds.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace coppice {
namespace {

cpu_set_t allowed() {
  cpu_set_t cpus;
  EXPECT_EQ(::sched_getaffinity(0, sizeof cpus, &cpus), 0);
  return cpus;
}

#define NEEDS_TWO_CPUS             \
  const cpu_set_t all = allowed(); \
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs"

TEST(cpu_bounds_test, who_stays_stays_on_one_cpu_until_released) {
  NEEDS_TWO_CPUS;
  std::thread([&all] {
    cpu_bounds bounds;
    const auto here = bounds.stay_here();
    ASSERT_TRUE(here);
    const cpu_set_t bound = allowed();
    EXPECT_EQ(CPU_COUNT(&bound), 1);
    EXPECT_TRUE(CPU_ISSET(*here, &bound));
    bounds.release();
    const cpu_set_t after = allowed();
    EXPECT_TRUE(CPU_EQUAL(&after, &all));
  }).join();
}

TEST(cpu_bounds_test, who_keeps_off_runs_on_the_others_until_none_are_named) {
  NEEDS_TWO_CPUS;
  std::thread([&all] {
    cpu_bounds bounds;
    const int here = ::sched_getcpu();
    bounds.keep_off({here});
    const cpu_set_t bound = allowed();
    EXPECT_FALSE(CPU_ISSET(here, &bound));
    EXPECT_EQ(CPU_COUNT(&bound), CPU_COUNT(&all) - 1);
    bounds.keep_off({});
    const cpu_set_t after = allowed();
    EXPECT_TRUE(CPU_EQUAL(&after, &all));
  }).join();
}

TEST(cpu_bounds_test, who_has_to_leave_its_cpu_stays_on_another) {
  NEEDS_TWO_CPUS;
  std::thread([&all] {
    cpu_bounds bounds;
    const auto first = bounds.stay_here();
    ASSERT_TRUE(first);
    bounds.keep_off({*first});
    const auto second = bounds.stay_here();
    ASSERT_TRUE(second);
    EXPECT_NE(*first, *second);
    const cpu_set_t bound = allowed();
    EXPECT_EQ(CPU_COUNT(&bound), 1);
    bounds.release();
    const cpu_set_t after = allowed();
    EXPECT_TRUE(CPU_EQUAL(&after, &all));
  }).join();
}

TEST(cpu_bounds_test, where_no_cpu_would_be_left_nothing_changes) {
  std::thread([] {
    const cpu_set_t all = allowed();
    std::vector<int> each;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &all)) each.push_back(cpu);
    cpu_bounds bounds;
    bounds.keep_off(each);
    const cpu_set_t after = allowed();
    EXPECT_TRUE(CPU_EQUAL(&after, &all));
  }).join();
}

}  // namespace
}  // namespace coppice
