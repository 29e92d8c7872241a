#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>
#include <streambuf>
#include <thread>

#include "cli/event_text.hpp"
#include "options/exit_codes.hpp"
#include "tests/cli/coppice_command.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// What a command prints, to be waited for by another thread.
class heard_output : public std::streambuf {
 public:
  // False at the deadline.
  bool wait_for(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return text_.find(text) != std::string::npos; });
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  int_type overflow(int_type c) override {
    const char one = traits_type::to_char_type(c);
    return xsputn(&one, 1) == 1 ? c : traits_type::eof();
  }
  std::streamsize xsputn(const char* text, std::streamsize count) override {
    const std::lock_guard lock(mutex_);
    text_.append(text, static_cast<std::size_t>(count));
    changed_.notify_all();
    return count;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
};

class events_command : public coppice_command {
 protected:
  void start(std::vector<const char*> words) {
    words.insert(words.begin(), {"coppice", "--server", server_.c_str(), "events"});
    following_ = std::thread([this, words] {
      std::ostream out(&printed_);
      std::ostringstream err;
      code_ = run_coppice(static_cast<int>(words.size()), words.data(), out, err);
      err_ = err.str();
    });
  }
  void end() {
    api_.reset();
    if (following_.joinable()) following_.join();
  }
  void TearDown() override { end(); }

  heard_output printed_;
  std::thread following_;
  int code_ = -1;
};

TEST_F(events_command, prints_a_line_for_each_event_until_the_daemon_ends) {
  start({"--since", "0"});  // long gone: answered at once, so that what comes is seen
  ASSERT_TRUE(printed_.wait_for("\n"));
  EXPECT_THAT(printed_.text(), MatchesRegex("reset reason=\".*\" id=[0-9]+\n"));
  plane_.emit({event_kind::branch_ready, "sb-1", "b1", "", "r-7"});
  ASSERT_TRUE(printed_.wait_for("branch.ready"));
  plane_.emit({event_kind::sandbox_died, "sb-1", "", "killed by \"9\""});
  ASSERT_TRUE(printed_.wait_for("sandbox.died"));
  end();
  EXPECT_EQ(code_, exit_unavailable);
  EXPECT_THAT(err_, HasSubstr("ended the stream"));
  EXPECT_THAT(printed_.text(), HasSubstr(" branch.ready request_id=r-7 sandbox=sb-1 tag=b1 id="));
  EXPECT_THAT(printed_.text(), HasSubstr(R"( sandbox.died reason="killed by \"9\"" sandbox=sb-1 id=)"));
}

TEST_F(events_command, goes_on_after_the_event_that_was_seen) {
  std::string latest;
  const auto read = [&](std::string_view bytes) {
    event_reader([&](const server_event& event) { latest = event.id; }).take(bytes);
    return latest.empty();
  };
  ASSERT_TRUE(api_client::create(server_)->stream("/v1/events", read, "0").ok());
  plane_.emit({event_kind::branch_ready, "sb-1", "b1", ""});
  start({"--since", latest.c_str(), "--json"});
  ASSERT_TRUE(printed_.wait_for("}\n"));
  const auto event = json::parse(printed_.text());
  EXPECT_EQ(event["type"], "branch.ready");
  EXPECT_EQ(event["id"], std::stoull(latest) + 1);
}

TEST_F(events_command, that_cannot_begin_tells_why) {
  EXPECT_EQ(run({"events", "--since", "yesterday"}), exit_usage);
  EXPECT_EQ(run({"events", "--since", "99999999999999999999"}), exit_usage) << "the daemon's refusal";
  server_ = "127.0.0.1:1";
  EXPECT_EQ(run({"events"}), exit_unavailable);
  EXPECT_THAT(err_, HasSubstr("is it running?"));
}

TEST(event_reader, puts_events_together_out_of_any_pieces) {
  const std::string stream =
      ": begins\n\nid: 7\nevent: branch.ready\ndata: {\"tag\":\ndata: \"b1\"}\n\n: "
      "heartbeat\r\n\r\nevent:x\ndata:y\n\n";
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    std::vector<std::string> heard;
    event_reader reader([&](const server_event& event) { heard.push_back(event_json(event).dump()); });
    for (std::size_t at = 0; at < stream.size(); at += piece) reader.take(std::string_view(stream).substr(at, piece));
    EXPECT_THAT(heard,
                ElementsAre(R"({"id":7,"tag":"b1","type":"branch.ready"})", R"({"data":"y","id":7,"type":"x"})"));
  }
}

TEST(event_line, has_the_time_first_and_what_is_told_after_it) {
  EXPECT_EQ(event_line({{"time_unix_ms", 1796135376005},
                        {"type", "branch.failed"},
                        {"id", 3},
                        {"tag", "b1"},
                        {"sandbox", nullptr},
                        {"reason", ""}}),
            "2026-12-01T14:29:36.005Z branch.failed reason=\"\" tag=b1 id=3");
  EXPECT_EQ(event_line({{"type", 3}}), "-");
}

}  // namespace
}  // namespace coppice
