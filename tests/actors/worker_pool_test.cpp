#include "actors/worker_pool.hpp"

#include <gtest/gtest.h>
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

}  // namespace
}  // namespace coppice
