#include "vmm/event_loop.hpp"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>
#include <vector>

#include "base/fd.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;

std::shared_ptr<event_loop> make_loop() {
  return std::move(event_loop::create()).value();
}

TEST(event_loop, runs_what_is_posted_in_order_on_its_own_thread) {
  auto loop = make_loop();
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) loop->post([&order, i] { order.push_back(i); });
  bool on_thread = false;
  loop->run_sync([&] { on_thread = loop->running_in_this_thread(); });
  EXPECT_TRUE(on_thread);
  EXPECT_FALSE(loop->running_in_this_thread());
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(event_loop, what_was_posted_runs_even_if_the_loop_is_dropped_at_once) {
  std::atomic<int> ran = 0;
  auto loop = make_loop();
  for (int i = 0; i < 50; ++i) loop->post([&ran] { ++ran; });
  loop.reset();
  EXPECT_EQ(ran, 50);
}

TEST(event_loop, dispatch_runs_at_once_where_nothing_else_runs_or_waits) {
  auto loop = make_loop();
  loop->run_sync([] {});
  std::thread::id ran_on;
  bool in_turn = false;
  // The loop's thread may still be on its way out of run_sync: then the work is posted, and another try follows.
  const auto until = event_loop::clock::now() + 10s;
  do {
    std::promise<void> ran;
    loop->dispatch([&] {
      ran_on = std::this_thread::get_id();
      in_turn = loop->running_in_this_thread();
      ran.set_value();
    });
    ran.get_future().wait();
    EXPECT_TRUE(in_turn);
  } while (ran_on != std::this_thread::get_id() && event_loop::clock::now() < until);
  EXPECT_EQ(ran_on, std::this_thread::get_id());
  EXPECT_FALSE(loop->running_in_this_thread());
}

TEST(event_loop, dispatch_keeps_the_order_of_what_was_posted_before) {
  auto loop = make_loop();
  std::promise<void> go;
  std::vector<int> order;
  loop->post([&, going = go.get_future().share()] {
    going.wait();
    order.push_back(0);
  });
  for (int i = 1; i < 50; ++i)
    i % 2 == 0 ? loop->post([&, i] { order.push_back(i); }) : loop->dispatch([&, i] { order.push_back(i); });
  go.set_value();
  loop->run_sync([] {});
  ASSERT_EQ(order.size(), 50U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(event_loop, tasks_of_many_threads_never_run_together) {
  auto loop = make_loop();
  const unique_fd event(::eventfd(1, EFD_CLOEXEC));  // readable for good: the loop's own thread is busy, too
  int inside = 0;                                    // no lock, no atomic: ThreadSanitizer looks on
  int most = 0;
  long runs = 0;
  const auto work = [&] {
    most = std::max(most, ++inside);
    ++runs;
    --inside;
  };
  loop->run_sync([&] { ASSERT_TRUE(loop->watch(event.get(), EPOLLIN, [&](std::uint32_t) { work(); })); });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) loop->dispatch(work);
    });
  }
  for (auto& thread : threads) thread.join();
  loop->run_sync([&] {
    loop->unwatch(event.get());
    EXPECT_GE(runs, 8000);
    EXPECT_EQ(most, 1);
  });
}

TEST(event_loop, a_dispatched_task_may_drop_the_last_reference) {
  for (int i = 0; i < 100; ++i) {
    auto loop = make_loop();
    std::promise<void> dropped;
    auto* raw = loop.get();
    raw->dispatch([held = std::make_shared<std::shared_ptr<event_loop>>(std::move(loop)), &dropped] {
      held->reset();
      dropped.set_value();
    });
    EXPECT_EQ(dropped.get_future().wait_for(10s), std::future_status::ready);
  }
}

TEST(event_loop, timers_fire_in_order_of_time_and_a_cancelled_one_never) {
  auto loop = make_loop();
  std::vector<int> order;
  std::promise<void> last;
  loop->run_sync([&] {
    const auto now = event_loop::clock::now();
    loop->add_timer(now + 20ms, [&] {
      order.push_back(3);
      last.set_value();
    });
    loop->add_timer(now + 10ms, [&] { order.push_back(2); });
    const auto never = loop->add_timer(now + 5ms, [&] { order.push_back(99); });
    loop->add_timer(now - 1s, [&] { order.push_back(1); });
    loop->cancel_timer(never);
  });
  ASSERT_EQ(last.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(event_loop, a_callback_may_unwatch_itself_and_is_not_called_again) {
  auto loop = make_loop();
  const unique_fd event(::eventfd(1, EFD_CLOEXEC));  // readable for good
  std::atomic<int> calls = 0;
  std::promise<void> called;
  loop->run_sync([&] {
    ASSERT_TRUE(loop->watch(event.get(), EPOLLIN, [&](std::uint32_t) {
      loop->unwatch(event.get());
      ++calls;
      called.set_value();
    }));
  });
  ASSERT_EQ(called.get_future().wait_for(10s), std::future_status::ready);
  loop->run_sync([] {});
  EXPECT_EQ(calls, 1);
}

TEST(event_loop, watching_what_cannot_be_watched_is_an_error) {
  auto loop = make_loop();
  loop->run_sync([&] { EXPECT_FALSE(loop->watch(-1, EPOLLIN, [](std::uint32_t) {})); });
}

TEST(event_loop, the_last_reference_may_be_dropped_on_the_loops_own_thread) {
  auto loop = make_loop();
  std::promise<void> dropped;
  auto* raw = loop.get();
  raw->post([held = std::make_shared<std::shared_ptr<event_loop>>(std::move(loop)), &dropped] {
    held->reset();
    dropped.set_value();
  });
  EXPECT_EQ(dropped.get_future().wait_for(10s), std::future_status::ready);
}

}  // namespace
}  // namespace coppice
