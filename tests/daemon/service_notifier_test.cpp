#include "daemon/service_notifier.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

#include "tests/api/fake_control_plane.hpp"
#include "tests/support/service_manager.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;

class service_notifier_test : public ::testing::Test {
 protected:
  service_environment environment(std::optional<std::chrono::microseconds> watchdog = std::nullopt) const {
    return {manager_.address(), watchdog};
  }
  fake_service_manager manager_;
  fake_control_plane plane_;
  std::unique_ptr<api_server> api_ = *api_server::start("127.0.0.1", 0, plane_);
};

TEST_F(service_notifier_test, says_when_it_is_ready_and_when_it_stops) {
  service_notifier notifier(environment());
  notifier.ready("listening on x", plane_, *api_);
  EXPECT_EQ(manager_.next(), "READY=1\nSTATUS=listening on x");
  notifier.stopping();
  EXPECT_EQ(manager_.next(), "STOPPING=1") << "no heartbeat, because there is no watchdog";
}

TEST_F(service_notifier_test, heartbeats_go_on_until_it_stops) {
  service_notifier notifier(environment(2ms));
  notifier.ready("", plane_, *api_);
  EXPECT_EQ(manager_.next(), "READY=1\nSTATUS=");
  for (int beat = 0; beat < 3; ++beat) EXPECT_EQ(manager_.next(), "WATCHDOG=1");
  notifier.stopping();
  std::optional<std::string> last;
  while (last != "STOPPING=1") ASSERT_TRUE(last = manager_.next());
  EXPECT_FALSE(manager_.next(20ms)) << "nothing after STOPPING";
}

TEST_F(service_notifier_test, a_control_plane_that_does_not_answer_gets_no_heartbeat) {
  plane_.hold = true;
  service_notifier notifier(environment(2ms));
  notifier.ready("", plane_, *api_);
  EXPECT_EQ(manager_.next(), "READY=1\nSTATUS=");
  EXPECT_FALSE(manager_.next(50ms)) << "25 questions are due and not answered";
  plane_.release();
  EXPECT_EQ(manager_.next(), "WATCHDOG=1");
}

TEST_F(service_notifier_test, an_api_whose_thread_is_stuck_gets_no_heartbeat) {
  std::promise<void> end;
  std::promise<void> stuck;
  service_notifier notifier(environment(2ms));
  api_->post([&] {
    stuck.set_value();
    end.get_future().wait();
  });
  stuck.get_future().wait();
  notifier.ready("", plane_, *api_);
  EXPECT_EQ(manager_.next(), "READY=1\nSTATUS=");
  EXPECT_FALSE(manager_.next(50ms)) << "25 questions are due and not asked";
  end.set_value();
  EXPECT_EQ(manager_.next(), "WATCHDOG=1");
}

TEST_F(service_notifier_test, a_control_plane_that_misses_its_deadline_gets_no_heartbeat) {
  plane_.failure = error{errc::deadline_exceeded, 0, "the fleet"};
  service_notifier notifier(environment(2ms));
  notifier.ready("", plane_, *api_);
  EXPECT_EQ(manager_.next(), "READY=1\nSTATUS=");
  EXPECT_FALSE(manager_.next(50ms));
}

TEST_F(service_notifier_test, without_a_service_manager_nothing_is_said) {
  service_notifier notifier({{}, 2ms});
  notifier.ready("", plane_, *api_);
  notifier.stopping();
  EXPECT_FALSE(manager_.next(10ms));
}

TEST(service_environment, is_taken_out_of_the_environment) {
  ::setenv("NOTIFY_SOCKET", "/run/x", 1);
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  const auto found = service_environment::take();
  EXPECT_EQ(found.socket, "/run/x");
  EXPECT_EQ(found.watchdog, 30s);
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) EXPECT_EQ(std::getenv(name), nullptr);
}

TEST(service_environment, a_watchdog_of_another_process_is_none) {
  ::setenv("WATCHDOG_USEC", "30000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_FALSE(service_environment::take().watchdog);
}

}  // namespace
}  // namespace coppice
