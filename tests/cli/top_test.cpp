#include "cli/top.hpp"

#include <gmock/gmock.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <sstream>
#include <thread>

#include "api/server.hpp"
#include "base/fd.hpp"
#include "cli/coppice.hpp"
#include "cli/top_view.hpp"
#include "options/exit_codes.hpp"
#include "tests/api/fake_control_plane.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::chrono::seconds patience{20};

top_reading reading(int second, const std::string& metrics) {
  return {.when = std::chrono::steady_clock::time_point(std::chrono::seconds(second)),
          .url = "http://127.0.0.1:1",
          .version = {{"version", "0.1.0"}, {"vmm", {{"name", "coppice-vmm"}, {"version", "0.1.0"}, {"live", true}}}},
          .sandboxes = {{{"id", "sb-idle"}, {"state", "running"}, {"branch_count", 9}, {"memory_bytes", 1048576}},
                        {{"id", "sb-busy"}, {"state", "running"}, {"branch_count", 3}},
                        {{"id", "sb-copied"}, {"state", "branching"}, {"branch_count", 1}}},
          .snapshots = {{{"tag", "old"}, {"status", "ready"}, {"branched_from", "sb-idle"}},
                        {{"tag", "b1"},
                         {"status", "writing"},
                         {"branched_from", "sb-copied"},
                         {"progress", {{"copied_pages", 34}, {"total_pages", 100}}}}},
          .metrics = *metric_samples::parse(metrics)};
}

TEST(top_view, tells_the_daemons_figures_and_speeds_since_the_reading_before) {
  const auto before = reading(10, "coppice_written_bytes_total 1048576\n");
  const auto now = reading(12,
                           "coppice_written_bytes_total 3145728\ncoppice_branches_in_flight 2\n"
                           "coppice_branches_total{mode=\"live\",outcome=\"ready\"} 4\n"
                           "coppice_copied_bytes_total{source=\"captured\"} 4096\n"
                           "coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"0.002\"} 4\n"
                           "coppice_branch_pause_seconds_bucket{mode=\"live\",le=\"+Inf\"} 4\n");
  const auto lines = top_lines(now, &before);
  EXPECT_THAT(lines[0], AllOf(StartsWith("coppiced 0.1.0"), HasSubstr("coppice-vmm 0.1.0")));
  EXPECT_EQ(lines[1], "sandboxes  3, 1 branching, 2 running");
  EXPECT_EQ(lines[2], "branches   2 in flight, 2.0/s, 4 ready, 0 failed");
  EXPECT_EQ(lines[3], "copies     1.0 MiB/s, 3.0 MiB written, 4.0 KiB captured at faults");
  EXPECT_EQ(lines[4], "pauses     live p50 1.00 ms, p99 1.98 ms");
  EXPECT_THAT(top_lines(now, nullptr)[3], HasSubstr("copies     -, 3.0 MiB")) << "no speed from one reading";
}

TEST(top_view, the_busiest_sandboxes_come_first) {
  auto before = reading(10, "");
  auto now = reading(12, "");
  before.sandboxes[1]["branch_count"] = 1;
  now.sandboxes[1]["last_pause_us"] = 1500;
  const auto lines = top_lines(now, &before);
  ASSERT_EQ(lines.size(), 10U);
  EXPECT_THAT(lines[6], StartsWith("SANDBOX"));
  EXPECT_THAT(lines[7], AllOf(StartsWith("sb-copied"), HasSubstr("b1 34%")));
  EXPECT_THAT(lines[8], ContainsRegex("^sb-busy +running +3 +2 +1.50 ms"));
  EXPECT_THAT(lines[9], AllOf(StartsWith("sb-idle"), HasSubstr("1.0 MiB")));
}

class top_command : public ::testing::Test {
 protected:
  void SetUp() override {
    plane_.sandboxes["sb-1"].id = "sb-1";
    auto started = api_server::start("127.0.0.1", 0, plane_);
    ASSERT_TRUE(started.ok());
    api_ = *std::move(started);
    server_ = "http://127.0.0.1:" + std::to_string(api_->port());
  }
  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
  std::string server_;
};

TEST_F(top_command, prints_one_frame_where_there_is_no_terminal) {
  std::ostringstream out;
  std::ostringstream err;
  const char* const words[] = {"coppice", "--server", server_.c_str(), "top", "--once"};
  EXPECT_EQ(run_coppice(5, words, out, err), exit_ok) << err.str();
  EXPECT_THAT(out.str(), AllOf(StartsWith("coppiced "), HasSubstr("sb-1")));
  EXPECT_EQ(out.str().find('\x1b'), std::string::npos);
  const char* const with_json[] = {"coppice", "--server", server_.c_str(), "top", "--json"};
  out.str("");
  EXPECT_EQ(run_coppice(5, with_json, out, err), exit_ok) << err.str();
  const auto told = nlohmann::json::parse(out.str());
  EXPECT_EQ(told["sandboxes"][0]["id"], "sb-1");
  EXPECT_EQ(told["metrics"][0], nlohmann::json({{"name", "up"}, {"labels", nlohmann::json::object()}, {"value", 1.0}}));
  api_.reset();
  EXPECT_EQ(run_coppice(5, words, out, err), exit_unavailable);
}

// The view on a pseudo-terminal of 12 lines and 40 columns.
class top_on_a_terminal : public top_command {
 protected:
  void SetUp() override {
    top_command::SetUp();
    int ends[2];
    const winsize size{12, 40, 0, 0};
    ASSERT_EQ(::openpty(&ends[0], &ends[1], nullptr, nullptr, &size), 0);
    ours_ = unique_fd(ends[0]);
    theirs_ = unique_fd(ends[1]);
    ASSERT_EQ(::tcgetattr(theirs_.get(), &before_), 0);
  }
  void TearDown() override {
    if (view_.joinable()) press('q');
  }
  void start(std::chrono::milliseconds interval) {
    view_ = std::thread([this, interval] {
      const command_context context{*api_client::create(server_), false, false, out_, err_};
      code_ = show_top_on_terminal(context, interval, theirs_.get(), theirs_.get());
    });
  }
  void press(char key) {
    EXPECT_EQ(::write(ours_.get(), &key, 1), 1);
    view_.join();
  }
  // Reads what is shown until `text` is; false at the deadline.
  bool shows(const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (shown_.find(text) == std::string::npos) {
      pollfd event{ours_.get(), POLLIN, 0};
      if (std::chrono::steady_clock::now() > deadline || ::poll(&event, 1, 100) < 0) return false;
      char buffer[4096];
      if (event.revents == 0) continue;
      const auto length = ::read(ours_.get(), buffer, sizeof buffer);
      if (length <= 0) return false;
      shown_.append(buffer, static_cast<std::size_t>(length));
    }
    shown_.erase(0, shown_.find(text) + text.size());
    return true;
  }
  void expect_restored() {
    termios after{};
    ASSERT_EQ(::tcgetattr(theirs_.get(), &after), 0);
    EXPECT_EQ(after.c_lflag, before_.c_lflag);
    EXPECT_TRUE(shows("\x1b[?25h\x1b[?1049l"));
  }

  unique_fd ours_;
  unique_fd theirs_;
  termios before_{};
  std::string shown_;
  std::ostringstream out_;
  std::ostringstream err_;
  std::thread view_;
  int code_ = -1;
};

TEST_F(top_on_a_terminal, shows_frames_until_q_and_restores_the_terminal) {
  start(std::chrono::milliseconds(20));
  EXPECT_TRUE(shows("\x1b[?1049h"));
  for (int frame = 0; frame < 3; ++frame) {
    EXPECT_TRUE(shows("coppiced "));
    EXPECT_TRUE(shows("sb-1"));
  }
  press('q');
  EXPECT_EQ(code_, exit_ok);
  expect_restored();
}

TEST_F(top_on_a_terminal, ends_at_ctrl_c_at_once) {
  start(std::chrono::hours(1));
  EXPECT_TRUE(shows("sb-1"));
  press('\x03');
  EXPECT_EQ(code_, exit_ok);
  expect_restored();
}

TEST_F(top_on_a_terminal, a_daemon_that_goes_is_said_and_asked_again) {
  start(std::chrono::milliseconds(20));
  EXPECT_TRUE(shows("sb-1"));
  const auto port = api_->port();
  api_.reset();
  EXPECT_TRUE(shows("coppice: "));
  auto again = api_server::start("127.0.0.1", port, plane_);
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_TRUE(shows("sb-1"));
  press('q');
}

TEST_F(top_on_a_terminal, without_a_daemon_the_terminal_is_left_alone) {
  api_.reset();
  start(std::chrono::hours(1));
  view_.join();
  EXPECT_EQ(code_, exit_unavailable);
  EXPECT_THAT(err_.str(), HasSubstr("is it running?"));
}

}  // namespace
}  // namespace coppice
