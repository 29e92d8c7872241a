#include "vmm/event_loop.hpp"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <functional>
#include <future>
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
  loop->run_sync([&] { on_thread = loop->on_loop_thread(); });
  EXPECT_TRUE(on_thread);
  EXPECT_FALSE(loop->on_loop_thread());
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

TEST(event_loop, what_a_callback_posts_runs_though_nothing_else_wakes_the_loop) {
  auto loop = make_loop();
  std::promise<void> from_a_timer, from_a_task;
  loop->run_sync([&] {
    loop->add_timer(event_loop::clock::now() + 1ms, [&] {
      loop->post([&] {
        from_a_timer.set_value();
        loop->post([&] { from_a_task.set_value(); });
      });
    });
  });
  EXPECT_EQ(from_a_timer.get_future().wait_for(10s), std::future_status::ready);
  EXPECT_EQ(from_a_task.get_future().wait_for(10s), std::future_status::ready);
}

TEST(event_loop, tasks_that_post_each_other_hold_up_no_timer) {
  auto loop = make_loop();
  std::promise<void> fired;
  bool stop = false;  // the loop's thread only
  std::function<void()> again = [&] {
    if (!stop) loop->post(again);
  };
  loop->run_sync([&] {
    loop->add_timer(event_loop::clock::now() + 1ms, [&] {
      stop = true;
      fired.set_value();
    });
    again();
  });
  EXPECT_EQ(fired.get_future().wait_for(10s), std::future_status::ready);
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
