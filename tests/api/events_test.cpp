#include <gmock/gmock.h>

#include "api/event_log.hpp"
#include "api/server.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const plane_event runs_again{event_kind::sandbox_running, "sb-1", "base", {}};

TEST(event_log, gives_what_follows_an_id_in_batches) {
  event_log log(10, 1);
  for (int i = 0; i < 5; ++i) log.add(runs_again);
  EXPECT_EQ(log.latest(), 5u);
  const auto first = log.following(1, 3);
  EXPECT_EQ(first.continue_at, 4u);
  EXPECT_THAT(first.text, AllOf(StartsWith("id: 2\nevent: sandbox.running\ndata: {"), HasSubstr("id: 4\n"),
                                Not(HasSubstr("id: 5\n"))));
  EXPECT_THAT(log.following(first.continue_at).text, StartsWith("id: 5\n"));
  EXPECT_THAT(log.following(5).text, IsEmpty());
}

TEST(event_log, says_that_events_are_gone_when_they_are) {
  event_log log(3, 1);
  for (int i = 0; i < 5; ++i) log.add(runs_again);
  EXPECT_THAT(log.following(2).text, StartsWith("id: 3\n"));
  for (const std::uint64_t lost : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{6}, ~std::uint64_t{0}}) {
    const auto batch = log.following(lost);
    EXPECT_THAT(batch.text, StartsWith("id: 5\nevent: reset\n")) << lost;
    EXPECT_EQ(batch.continue_at, 5u);
  }
}

TEST(event_log, ids_rise_over_a_restart) {
  const event_log before(1000);
  EXPECT_LE(before.latest(), event_log(1000).latest());
  EXPECT_LT(before.latest(), std::uint64_t{1} << 53);
}

TEST(event_log, an_event_is_one_line_whatever_its_reason_says) {
  event_log log(10, 1);
  log.add({event_kind::branch_failed, "sb-1", "b", "no\nspace \xff", "id-1"});
  const auto text = log.following(0).text;
  EXPECT_EQ(std::ranges::count(text, '\n'), 4);
  EXPECT_THAT(text, AllOf(HasSubstr("no\\nspace"), HasSubstr("\"request_id\":\"id-1\""),
                          HasSubstr("\"type\":\"branch.failed\"")));
}

class event_stream : public ::testing::Test {
 protected:
  void start(api_server_options options = {}) {
    api_.reset();
    api_ = *api_server::start("127.0.0.1", 0, plane_, std::move(options));
  }
  void SetUp() override { start(); }

  std::unique_ptr<raw_client> open(const std::string& header = "") const {
    auto client = std::make_unique<raw_client>(api_->port());
    EXPECT_TRUE(client->send("GET /v1/events HTTP/1.1\r\nHost: x\r\n" + header + "\r\n"));
    const auto head = client->read_until("from here on\n\n");
    EXPECT_THAT(head, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("Content-Type: text/event-stream\r\n"),
                            HasSubstr("X-Request-Id: ")));
    return client;
  }
  static std::string id_of(const std::string& event) { return event.substr(4, event.find('\n') - 4); }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
};

TEST_F(event_stream, sends_events_as_they_happen_to_all_who_listen) {
  const auto one = open();
  const auto other = open();
  plane_.emit(runs_again);
  for (const auto& client : {one.get(), other.get()}) {
    EXPECT_THAT(client->read_until("\n\n"), AllOf(StartsWith("id: "), HasSubstr("event: sandbox.running\n"),
                                                  HasSubstr("\"sandbox\":\"sb-1\""), HasSubstr("\"tag\":\"base\"")));
  }
}

TEST_F(event_stream, goes_on_after_the_event_that_the_client_saw_last) {
  std::string seen;
  {
    const auto client = open();
    plane_.emit(runs_again);
    seen = id_of(client->read_until("\n\n"));
  }
  plane_.emit({event_kind::branch_started, "sb-1", "b1", {}});
  plane_.emit({event_kind::branch_ready, "sb-1", "b1", {}});
  const auto client = open("Last-Event-ID: " + seen + "\r\n");
  EXPECT_THAT(client->read_until("\"type\":\"branch.ready\"}"),
              AllOf(HasSubstr("event: branch.started\n"), HasSubstr("event: branch.ready\n"),
                    Not(HasSubstr("sandbox.running"))));
}

TEST_F(event_stream, tells_a_client_that_was_away_too_long_to_list_anew) {
  start({.events_kept = 2});
  const auto client = open();
  plane_.emit(runs_again);
  const auto seen = id_of(client->read_until("\n\n"));
  for (int i = 0; i < 5; ++i) plane_.emit(runs_again);
  EXPECT_THAT(open("Last-Event-ID: " + seen + "\r\n")->read_until("\n\n"), HasSubstr("event: reset\n"));
}

TEST_F(event_stream, a_last_event_id_that_is_none_is_400) {
  raw_client client(api_->port());
  ASSERT_TRUE(client.send("GET /v1/events HTTP/1.1\r\nLast-Event-ID: x\r\n\r\n"));
  EXPECT_THAT(client.read_until("}\n"), AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("Last-Event-ID")));
}

TEST_F(event_stream, a_silent_stream_beats) {
  start({.heartbeat = std::chrono::milliseconds(20)});
  const auto client = open();
  EXPECT_EQ(client->read_until(": heartbeat\n\n: heartbeat\n\n").find("<timeout>"), std::string::npos);
}

TEST_F(event_stream, a_client_that_left_gives_its_connection_back) {
  start({.limits = {.connections = 1}});
  open();
  for (;;) {  // the server hears of it soon
    raw_client next(api_->port());
    next.send("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
    if (next.read_until("}").starts_with("HTTP/1.1 200")) break;
  }
}

TEST_F(event_stream, a_client_that_does_not_read_is_hung_up_on) {
  start({.limits = {.connections = 1, .write_timeout = std::chrono::milliseconds(100)}});
  const auto deaf = open();
  const std::string long_reason(64 * kib, 'x');
  for (;;) {
    plane_.emit({event_kind::branch_failed, "sb-1", "b", long_reason});
    raw_client next(api_->port());
    next.send("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
    if (next.read_until("}").starts_with("HTTP/1.1 200")) break;
  }
}

TEST_F(event_stream, ends_when_its_token_is_taken_away_and_no_other_does) {
  const auto tokens = [](const std::string& lines) {
    return std::make_shared<const token_set>(*token_set::parse(lines, "file"));
  };
  start({.tokens = tokens("old read 0123456789abcdef\nstays read fedcba9876543210\n")});
  const auto old = open("Authorization: Bearer 0123456789abcdef\r\n");
  const auto stays = open("Authorization: Bearer fedcba9876543210\r\n");
  api_->set_tokens(tokens("old read 9876543210fedcba\nstays write fedcba9876543210\n"));  // the name stays, too
  EXPECT_EQ(old->read_until(""), "");
  plane_.emit(runs_again);
  EXPECT_THAT(stays->read_until("\n\n"), HasSubstr("event: sandbox.running\n"));
}

TEST_F(event_stream, ends_when_the_server_stops_and_the_control_plane_may_outlive_it) {
  const auto client = open();
  api_->stop(std::chrono::seconds(20));
  EXPECT_EQ(client->read_until(""), "");
  api_.reset();
  plane_.emit(runs_again);
}

}  // namespace
}  // namespace coppice
