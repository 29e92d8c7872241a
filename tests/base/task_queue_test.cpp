#include "base/task_queue.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <thread>

namespace coppice {
namespace {

class task_queue_test : public ::testing::Test {
 protected:
  bool is_awake() const {
    pollfd of{tasks.fd(), POLLIN, 0};
    return ::poll(&of, 1, 0) == 1;
  }
  auto note(int what) {
    return [this, what] { ran.push_back(what); };
  }

  task_queue tasks{*task_queue::make_eventfd()};
  std::vector<int> ran;
};

TEST_F(task_queue_test, runs_what_is_posted_in_its_order_and_what_that_posts) {
  tasks.post([this] {
    ran.push_back(1);
    tasks.post(note(3));
  });
  tasks.post(note(2));
  tasks.run_all();
  EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(tasks.empty());
}

TEST_F(task_queue_test, a_round_is_what_was_posted_before_it) {
  tasks.post([this] { tasks.post(note(1)); });
  EXPECT_TRUE(tasks.run_posted());
  EXPECT_TRUE(ran.empty());
  EXPECT_TRUE(tasks.run_posted());
  EXPECT_EQ(ran, (std::vector<int>{1}));
  EXPECT_FALSE(tasks.run_posted());
}

// The one who posted first may not get a CPU for long, and its wake-up is yet to come.
TEST_F(task_queue_test, each_post_wakes_even_if_one_before_it_should_have) {
  tasks.post_to_self(note(1));
  EXPECT_FALSE(is_awake());
  tasks.post(note(2));
  EXPECT_TRUE(is_awake());
  tasks.clear_wakeups();
  EXPECT_FALSE(is_awake());
  EXPECT_FALSE(tasks.empty());
}

TEST_F(task_queue_test, what_a_task_holds_is_released_before_the_next_one_runs) {
  auto held = std::make_shared<int>();
  tasks.post([copy = held] {});
  long owners = 0;
  tasks.post([&] { owners = held.use_count(); });
  tasks.run_all();
  EXPECT_EQ(owners, 1);
}

TEST_F(task_queue_test, what_is_left_at_the_end_is_dropped) {
  auto held = std::make_shared<int>();
  {
    task_queue short_lived(*task_queue::make_eventfd());
    short_lived.post([copy = held] {});
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(task_queue_test, keeps_each_threads_order_however_many_post) {
  constexpr int threads = 4, each = 1000;
  std::vector<std::vector<int>> seen(threads);
  std::vector<std::thread> posters;
  for (int poster = 0; poster < threads; ++poster) {
    posters.emplace_back([this, poster, &seen] {
      for (int i = 0; i < each; ++i)
        tasks.post([&seen, poster, i] { seen[static_cast<std::size_t>(poster)].push_back(i); });
    });
  }
  int left = threads * each;
  while (left > 0) {
    tasks.run_all();
    left = threads * each;
    for (const auto& of : seen) left -= static_cast<int>(of.size());
  }
  for (auto& poster : posters) poster.join();
  for (const auto& of : seen) EXPECT_TRUE(std::is_sorted(of.begin(), of.end()));
}

}  // namespace
}  // namespace coppice
