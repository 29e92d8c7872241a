#include "actors/loop_scheduler.hpp"

#include <gtest/gtest.h>

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/mailbox_element.hpp>
#include <caf/send.hpp>
#include <functional>
#include <future>

namespace coppice {
namespace {

using namespace std::chrono_literals;

// What a lambda that is spawned would be, but for a null pointer that CAF's own wrapper of lambdas dereferences.
class scripted final : public caf::event_based_actor {
 public:
  using script = std::function<caf::behavior(caf::event_based_actor*)>;
  scripted(caf::actor_config& config, script body) : event_based_actor(config), body_(std::move(body)) {}
  caf::behavior make_behavior() override { return body_(this); }

 private:
  const script body_;
};

class loop_scheduler_test : public testing::Test {
 protected:
  template <class T>
  static T soon(std::promise<T>& promise) {
    auto future = promise.get_future();
    EXPECT_EQ(future.wait_for(60s), std::future_status::ready);
    return future.get();
  }

  std::shared_ptr<event_loop> loop_ = std::move(event_loop::create()).value();
};

TEST_F(loop_scheduler_test, actors_run_on_the_loops_thread_also_those_that_actors_spawn) {
  loop_settings settings(loop_);
  caf::actor_system system(settings);
  std::promise<bool> spawner_on_loop, spawned_on_loop;
  system.spawn<scripted>([&](caf::event_based_actor* self) -> caf::behavior {
    spawner_on_loop.set_value(loop_->on_loop_thread());
    self->spawn<scripted>([&](caf::event_based_actor*) -> caf::behavior {
      spawned_on_loop.set_value(loop_->on_loop_thread());
      return {};
    });
    return {};
  });
  EXPECT_TRUE(soon(spawner_on_loop));
  EXPECT_TRUE(soon(spawned_on_loop));
}  // here a system whose logger some thread still holds would wait for ever

TEST_F(loop_scheduler_test, the_loop_serves_others_between_two_turns_of_a_busy_actor) {
  loop_settings settings(loop_);
  caf::actor_system system(settings);
  std::promise<void> served;
  bool stop = false;  // the loop's thread only
  const auto busy = system.spawn<scripted>([&](caf::event_based_actor* self) -> caf::behavior {
    return {[&, self](int number) {
      if (!stop) self->send(self, number);
    }};
  });
  caf::anon_send(busy, 1);
  loop_->post([&] {
    loop_->add_timer(event_loop::clock::now() + 5ms, [&] {
      stop = true;
      served.set_value();
    });
  });
  soon(served);
}

TEST_F(loop_scheduler_test, delayed_messages_and_deadlines_come) {
  loop_settings settings(loop_);
  caf::actor_system system(settings);
  std::promise<int> delayed;
  std::promise<bool> missed;
  const auto silent = system.spawn<scripted>([](caf::event_based_actor* self) -> caf::behavior {
    return {[self](int) { return self->make_response_promise(); }};
  });
  const auto receiver = system.spawn<scripted>([&](caf::event_based_actor* self) -> caf::behavior {
    self->request(silent, 5ms, 1)
        .then([](int) {}, [&](caf::error& why) { missed.set_value(why == caf::sec::request_timeout); });
    return {[&](int number) { delayed.set_value(number); }};
  });
  caf::delayed_anon_send(receiver, 5ms, 7);
  EXPECT_TRUE(soon(missed));
  EXPECT_EQ(soon(delayed), 7);
  caf::anon_send_exit(silent, caf::exit_reason::user_shutdown);
}

// All are asked for before any is due to be looked at: the loop's thread waits meanwhile.
TEST_F(loop_scheduler_test, what_is_due_earlier_comes_first_whenever_and_wherever_it_was_asked_for) {
  loop_settings settings(loop_);
  caf::actor_system system(settings);
  std::vector<int> came;  // the loop's thread only
  std::promise<std::vector<int>> all;
  const auto receiver = system.spawn<scripted>([&](caf::event_based_actor* self) -> caf::behavior {
    return {[&, self](int number) {
      came.push_back(number);
      if (came.size() < 3) return;
      all.set_value(came);
      self->quit();
    }};
  });
  const auto now = system.clock().now();
  const auto ask = [&](std::chrono::milliseconds delay, int number) {
    system.clock().schedule_message(now + delay, caf::actor_cast<caf::strong_actor_ptr>(receiver),
                                    caf::make_mailbox_element(nullptr, caf::make_message_id(), {}, number));
  };
  std::promise<void> asked_elsewhere;
  loop_->post([&] {
    ask(40ms, 3);
    asked_elsewhere.get_future().wait();
  });
  ask(10ms, 1);
  ask(20ms, 2);
  asked_elsewhere.set_value();
  EXPECT_EQ(soon(all), (std::vector<int>{1, 2, 3}));
}

TEST_F(loop_scheduler_test, an_answer_in_time_takes_its_deadline_back) {
  loop_settings settings(loop_);
  caf::actor_system system(settings);
  std::promise<int> answers;
  const auto prompt = system.spawn<scripted>(
      [](caf::event_based_actor*) -> caf::behavior { return {[](int number) { return number; }}; });
  system.spawn<scripted>([&](caf::event_based_actor* self) -> caf::behavior {
    auto heard = std::make_shared<int>(0);
    self->request(prompt, 20ms, 1).then([heard](int) { ++*heard; }, [heard](caf::error&) { *heard += 100; });
    self->delayed_send(self, 60ms, 0);  // when it would have been due
    return {[&answers, self, heard](int) {
      answers.set_value(*heard);
      self->quit();
    }};
  });
  EXPECT_EQ(soon(answers), 1);
  caf::anon_send_exit(prompt, caf::exit_reason::user_shutdown);
}

// An actor that is destroyed on another thread while its system ends takes its timeouts back, whenever the loop gets to
// it.
TEST_F(loop_scheduler_test, what_is_asked_of_a_stopped_clock_may_be_looked_at_when_that_is_gone) {
  auto clock = std::make_unique<loop_clock>(loop_);
  clock->stop();
  std::promise<void> gone;
  loop_->post([&] { gone.get_future().wait(); });
  clock->cancel_all();
  clock.reset();
  gone.set_value();
  loop_->run_sync([] {});
}

TEST_F(loop_scheduler_test, what_is_due_after_the_systems_end_is_dropped) {
  const auto kept = std::make_shared<int>(0);
  {
    loop_settings settings(loop_);
    caf::actor_system system(settings);
    const auto receiver = system.spawn<scripted>(
        [kept](caf::event_based_actor* self) -> caf::behavior { return {[self](int) { self->quit(); }}; });
    caf::delayed_anon_send(receiver, 1h, 7);
    caf::anon_send(receiver, 1);
  }
  EXPECT_EQ(kept.use_count(), 1);
}

TEST_F(loop_scheduler_test, a_handle_may_outlive_the_system_and_the_loop_goes_on) {
  caf::actor left;
  {
    loop_settings settings(loop_);
    caf::actor_system system(settings);
    left = system.spawn<scripted>(
        [](caf::event_based_actor* self) -> caf::behavior { return {[self](int) { self->quit(); }}; });
    caf::anon_send(left, 1);
  }
  caf::anon_send(left, 2);
  bool ran = false;
  loop_->run_sync([&] { ran = true; });
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace coppice
