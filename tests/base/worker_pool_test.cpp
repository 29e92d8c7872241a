#include "base/worker_pool.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <future>

namespace coppice {
namespace {

TEST(worker_pool_test, a_worker_that_is_woken_takes_no_guests_cpu) {
  worker_pool pool(1);
  std::promise<int> policy;
  pool.post([&] { policy.set_value(::sched_getscheduler(0)); });
  EXPECT_EQ(policy.get_future().get(), SCHED_BATCH);
}

TEST(worker_pool_test, has_the_name_and_the_policy_that_it_is_given) {
  worker_pool pool(1, "a-helper", SCHED_OTHER);
  std::promise<std::pair<std::string, int>> is;
  pool.post([&] {
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    is.set_value({name, ::sched_getscheduler(0)});
  });
  EXPECT_EQ(is.get_future().get(), std::pair(std::string("a-helper"), SCHED_OTHER));
}

TEST(worker_pool_test, runs_what_is_queued_before_it_ends) {
  int ran = 0;
  {
    worker_pool pool(1);
    for (int i = 0; i < 100; ++i) pool.post([&] { ++ran; });
  }
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace coppice
