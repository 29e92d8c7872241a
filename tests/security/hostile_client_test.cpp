// Clients that mean harm, without a token: the server stays up, and serves the others.
#include <gmock/gmock.h>

#include <atomic>
#include <semaphore>

#include "api/server.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"

namespace coppice {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class hostile_client : public ::testing::Test {
 protected:
  void start(api_server_options options = {}) {
    options.tokens = std::make_shared<const token_set>(*token_set::parse("ops write 0123456789abcdef", "file"));
    api_ = *api_server::start("127.0.0.1", 0, plane_, std::move(options));
  }
  void expect_served() const {
    const auto client = *api_client::create("127.0.0.1:" + std::to_string(api_->port()), {"0123456789abcdef", {}});
    const auto answer = client.send("GET", "/v1/snapshots");
    ASSERT_TRUE(answer.ok()) << answer.error().message();
    EXPECT_EQ(answer->status, 200u);
  }
  // Sends `byte` every few milliseconds until the server hangs up; how long that took.
  static milliseconds drip(raw_client& client, std::string_view byte) {
    const auto began = std::chrono::steady_clock::now();
    while (client.send(byte) && !client.hung_up(5)) {
      if (std::chrono::steady_clock::now() - began > std::chrono::seconds(20)) break;
    }
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - began);
  }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
};

TEST_F(hostile_client, who_drips_its_header_is_cut_off_though_it_never_falls_silent) {
  start({.limits = {.idle_timeout = milliseconds(200)}});
  raw_client slow(api_->port());
  slow.send("GET /v1/snapshots HTTP/1.1\r\nX-Slow: ");
  EXPECT_LT(drip(slow, "x"), std::chrono::seconds(5));
  expect_served();
}

TEST_F(hostile_client, who_drips_its_body_is_cut_off_though_it_never_falls_silent) {
  start({.limits = {.body_timeout = milliseconds(200)}});
  raw_client slow(api_->port());
  slow.send("POST /v1/snapshots HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_LT(drip(slow, " "), std::chrono::seconds(5));
  expect_served();
}

// The answers are more than the buffers of both sockets hold.
TEST_F(hostile_client, who_does_not_read_its_answers_is_cut_off) {
  constexpr int requests = 400;
  std::atomic<int> answered{0};
  std::counting_semaphore<> closed(0);
  start({.limits = {.write_timeout = milliseconds(200)},
         .on_request = [&](const request_record&) { ++answered; },
         .on_connection =
             [&](const connection_record& connection) {
               if (connection.what == connection_record::change::closed) closed.release();
             }});
  raw_client deaf(api_->port());
  std::string all;
  for (int i = 0; i < requests; ++i) {
    all += "GET /v1/openapi.json HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
  }
  ASSERT_TRUE(deaf.send(all));
  ASSERT_TRUE(closed.try_acquire_for(std::chrono::seconds(20)));
  EXPECT_GT(answered, 0);
  EXPECT_LT(answered, requests) << "the buffers hold them all: send more";
  expect_served();
  api_.reset();  // it uses what ends here
}

TEST_F(hostile_client, the_body_of_who_has_no_token_is_not_waited_for) {
  start();
  for (const std::string& header : {std::string("Content-Length: 1000000"), std::string("Transfer-Encoding: chunked"),
                                    std::string("Content-Length: 9\r\nExpect: 100-continue")}) {
    raw_client raw(api_->port());
    raw.send("POST /v1/snapshots HTTP/1.1\r\n" + header + "\r\n\r\n");
    EXPECT_THAT(raw.read_until("}\n"), ::testing::StartsWith("HTTP/1.1 401 ")) << header;
  }
  expect_served();
}

TEST_F(hostile_client, a_web_page_in_a_browser_of_the_host_is_not_served) {
  start({.refuses_web_pages = true});
  const auto status = [&](const std::string& headers) {
    raw_client raw(api_->port());
    raw.send("GET /healthz HTTP/1.1\r\n" + headers + "\r\n");
    return raw.read_until("\r\n");
  };
  for (const char* page :
       {"Origin: https://evil.example\r\n", "Origin: null\r\n", "Host: evil.example:8889\r\n",
        "Host: localhost.evil.example\r\n", "Host: 127.0.0.1.evil.example\r\n",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n", "Host: localhost\r\nSec-Fetch-Site: same-site\r\n"}) {
    EXPECT_THAT(status(page), HasSubstr(" 403 ")) << page;
  }
  for (const char* client : {"", "Host: 127.0.0.1:8889\r\n", "Host: localhost\r\n", "Host: [::1]:8889\r\n",
                             "Host: localhost\r\nSec-Fetch-Site: none\r\n"}) {
    EXPECT_THAT(status(client), HasSubstr(" 200 ")) << client;
  }
}

TEST_F(hostile_client, many_idle_connections_are_bounded_and_give_way) {
  start({.limits = {.connections = 50, .idle_timeout = milliseconds(300)}});
  std::vector<std::unique_ptr<raw_client>> idle;
  for (int i = 0; i < 60; ++i) {
    idle.push_back(std::make_unique<raw_client>(api_->port()));
    ASSERT_TRUE(idle.back()->connected());
  }
  EXPECT_THAT(idle.back()->read_until(""), HasSubstr("too many connections"));
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(idle[static_cast<std::size_t>(i)]->hung_up(20'000));
  expect_served();
}

TEST_F(hostile_client, a_huge_body_or_header_is_refused_before_it_is_read) {
  start();
  raw_client body(api_->port());
  body.send("POST /v1/snapshots HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n{");
  EXPECT_THAT(body.read_until("}\n"), HasSubstr(" 413 "));
  raw_client header(api_->port());
  for (int i = 0; i < 1000 && header.send("GET / HTTP/1.1\r\nX: " + std::string(1000, 'x')); ++i) {
  }
  EXPECT_THAT(header.read_until("}\n"), HasSubstr(" 431 "));
  raw_client fields(api_->port());
  fields.send("GET / HTTP/1.1\r\n");
  for (int i = 0; i < 10'000 && fields.send("X: y\r\n"); ++i) {
  }
  EXPECT_THAT(fields.read_until("}\n"), HasSubstr(" 431 "));
  expect_served();
}

// The parser waits for the end of these, and would take them as fast as they come.
TEST_F(hostile_client, an_endless_line_within_a_body_is_refused_not_kept) {
  start();
  for (const char* begin : {"1;", "0", "0\r\nX: "}) {
    raw_client raw(api_->port());
    raw.send(
        "POST /v1/sandboxes HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\nTransfer-Encoding: chunked\r\n\r\n" +
        std::string(begin));
    for (int i = 0; i < 300 && raw.send(std::string(1000, '0')); ++i) {
    }
    EXPECT_THAT(raw.read_until("}\n"), HasSubstr(" 400 ")) << begin;
  }
  expect_served();
}

TEST_F(hostile_client, a_request_that_two_readers_would_split_differently_is_refused) {
  start();
  for (const std::string& smuggled :
       {std::string("POST /v1/sandboxes HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::string("POST /v1/sandboxes HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}  "),
        std::string("POST /v1/sandboxes HTTP/1.1\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        std::string("POST /v1/sandboxes HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        std::string(
            "POST /v1/sandboxes HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::string("POST /v1/sandboxes HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::string("POST /v1/sandboxes HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("GET /v1/snapshots\r\n\r\n")}) {
    raw_client raw(api_->port());
    raw.send(smuggled);
    EXPECT_THAT(raw.read_until("}\n"), HasSubstr(" 400 ")) << smuggled;
  }
  expect_served();
}

TEST_F(hostile_client, deeply_nested_json_is_an_error_not_a_crash) {
  start();
  const auto client = *api_client::create("127.0.0.1:" + std::to_string(api_->port()), {"0123456789abcdef", {}});
  for (const char* open : {"[", "{\"a\":"}) {
    std::string nested;
    while (nested.size() < 900 * kib) nested += open;
    EXPECT_EQ(client.send("POST", "/v1/sandboxes", nested)->status, 400u);
  }
  expect_served();
}

TEST_F(hostile_client, answers_do_not_grow_with_what_was_sent) {
  start();
  const auto client = *api_client::create("127.0.0.1:" + std::to_string(api_->port()), {"0123456789abcdef", {}});
  const std::string large(10'000, 'x');
  EXPECT_LT(client.send("GET", "/" + large)->body.size(), 1000u);
  EXPECT_LT(client.send("DELETE", "/v1/sandboxes/" + large)->body.size(), 1000u);
  EXPECT_LT(client.send("POST", "/v1/sandboxes", "{\"" + large + "\":1}")->body.size(), 1000u);
  EXPECT_LT(client.send("GET", "/v1/snapshots?" + large)->body.size(), 1000u);
  EXPECT_LT(client.send("POST", "/v1/snapshots", R"({"tag":"a","kernel":"/)" + large + "\"}")->body.size(), 3000u);
  EXPECT_LT(client.send("POST", "/v1/sandboxes/a/branch", R"({"mode":")" + large + "\"}")->body.size(), 3000u);
}

}  // namespace
}  // namespace coppice
