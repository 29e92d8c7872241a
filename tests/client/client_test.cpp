// The client against a real server, and against sockets that answer what no server of ours would.
#include "client/client.hpp"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "api/server.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/security/certificates.hpp"
#include "tests/support/one_answer.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(client, an_answers_error_comes_with_its_kind_and_sentence) {
  fake_control_plane plane;
  const auto api = *api_server::start("127.0.0.1", 0, plane);
  const auto client = *api_client::create("http://127.0.0.1:" + std::to_string(api->port()) + "/");
  plane.failure = error{errc::already_exists, 0, "tag 'a' is taken"};
  const auto answer = client.get("/v1/snapshots");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, errc::already_exists);
  EXPECT_EQ(answer.error().message(), "tag 'a' is taken");
  plane.failure.reset();
  plane.snapshots["a"].tag = "a";
  EXPECT_TRUE(client.remove("/v1/snapshots/a")->is_null());
  EXPECT_EQ((*client.post("/v1/sandboxes", {{"snapshot_tag", "a"}})).size(), 1u);
  EXPECT_EQ(client.get("/metrics").error().code, errc::corrupt);
}

TEST(client, nobody_listening_is_unavailable_with_what_to_do) {
  const auto answer = api_client::create("127.0.0.1:1")->get("/healthz");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, errc::unavailable);
  EXPECT_THAT(answer.error().message(), AllOf(HasSubstr("http://127.0.0.1:1"), HasSubstr("coppiced --root")));
}

TEST(client, a_server_that_does_not_answer_is_given_up_on) {
  fake_control_plane plane;
  plane.hold = true;
  const auto api = *api_server::start("127.0.0.1", 0, plane);
  auto client = *api_client::create("127.0.0.1:" + std::to_string(api->port()));
  client.set_timeout(std::chrono::milliseconds(100));
  const auto answer = client.get("/v1/snapshots");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, errc::deadline_exceeded);
}

TEST(client, a_bad_server_address_is_refused) {
  for (const char* url :
       {"", "localhost", "http://", "http://:80", "http://a:", "http://a:x", "http://a:0", "a:70000", "https://a:1/x",
        "http://a/b:1", "http://a:1?b:1/", "http://me@a:1", "ftp://a:1", "http://a b:1"}) {
    EXPECT_FALSE(api_client::create(url).ok()) << url;
  }
  EXPECT_EQ(api_client::create("http://[::1]:8889")->url(), "http://[::1]:8889");
}

TEST(client, a_path_segment_is_escaped) {
  EXPECT_EQ(path_segment("../x y"), "..%2Fx%20y");
}

TEST(client, a_unix_socket_that_is_not_there_is_unavailable_with_its_reason) {
  const temp_dir folder;
  const auto answer = api_client::create("unix:" + (folder.path() / "none.sock").string())->get("/healthz");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, errc::unavailable);
  EXPECT_THAT(answer.error().message(), AllOf(HasSubstr("none.sock: No such file"), HasSubstr("is it running?")));
  EXPECT_FALSE(api_client::create("unix:").ok());
  EXPECT_FALSE(api_client::create("unix:/" + std::string(200, 'x')).ok());
}

TEST(client, sends_what_it_was_told_and_nothing_of_the_environments) {
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  ::setenv("all_proxy", "http://127.0.0.1:1", 1);
  one_answer server("HTTP/1.1 204 No Content\r\n\r\n");
  const auto answer = server.client().send("POST", "/v1/../%2F?a=b c");
  ::unsetenv("http_proxy");
  ::unsetenv("all_proxy");
  ASSERT_TRUE(answer.ok()) << answer.error().message();
  EXPECT_EQ(answer->status, 204u);
  EXPECT_THAT(server.request(),
              AllOf(StartsWith("POST /v1/../%2F?a=b c HTTP/1.1\r\nHost: 127.0.0.1:"),
                    HasSubstr("\r\nAuthorization: Bearer a-token\r\n"), HasSubstr("\r\nConnection: close\r\n"),
                    HasSubstr("\r\nContent-Length: 0\r\n"), Not(HasSubstr("Content-Type"))));
}

TEST(client, a_redirection_is_an_answer_as_any_other) {
  one_answer server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  const auto answer = server.client().send("GET", "/");
  ASSERT_TRUE(answer.ok()) << answer.error().message();
  EXPECT_EQ(answer->status, 302u);
}

TEST(client, what_is_no_answer_or_only_the_begin_of_one_is_io) {
  for (const char* text : {"", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1,"}) {
    const auto answer = one_answer(text).client().get("/");
    ASSERT_FALSE(answer.ok()) << text;
    EXPECT_EQ(answer.error().code, errc::io) << text;
    EXPECT_THAT(answer.error().message(), HasSubstr("no answer from coppiced at http://127.0.0.1:"));
  }
}

TEST(client, a_success_that_is_no_json_is_corrupt_and_a_failure_that_is_none_keeps_its_status) {
  const auto broken = one_answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1,").client().get("/");
  EXPECT_EQ(broken.error().code, errc::corrupt);
  const auto failed = one_answer("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n[1,").client().get("/x");
  EXPECT_EQ(failed.error().code, errc::not_found);
  EXPECT_THAT(failed.error().message(), AllOf(StartsWith("HTTP 404 from http://127.0.0.1:"), EndsWith("/x")));
}

TEST(client, is_used_by_many_threads_at_once) {
  fake_control_plane plane;
  for (int i = 0; i < 100; ++i) plane.snapshots["s" + std::to_string(i)].tag = "s" + std::to_string(i);
  const auto api = *api_server::start("127.0.0.1", 0, plane);
  const auto client = *api_client::create("127.0.0.1:" + std::to_string(api->port()));
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        const auto tag = "s" + std::to_string(10 * i + round);
        const auto answer = client.get("/v1/snapshots/" + tag + "/info");
        right += answer.ok() && (*answer)["tag"] == tag ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 80);
}

TEST(client, tls_files_that_can_not_be_used_are_named_before_anybody_is_asked) {
  const certificates made;
  const auto refused = [](const tls_files& files) {
    const auto client = api_client::create("https://127.0.0.1:1", {"", files});
    EXPECT_FALSE(client.ok());
    if (client.ok()) return std::string();
    EXPECT_EQ(client.error().code, errc::invalid_argument);
    return client.error().message();
  };
  const auto prose = made.file("prose.pem");
  std::ofstream(prose) << "no certificate\n";
  const auto open_key = made.file("open.key");
  std::filesystem::copy_file(made.file("client.key"), open_key);
  std::filesystem::permissions(open_key, std::filesystem::perms(0644));
  const auto crt = made.file("client.crt");
  const auto key = made.file("client.key");
  EXPECT_THAT(refused({"", "", "/no/such.crt"}), AllOf(HasSubstr("TLS CA: "), HasSubstr("/no/such.crt: No such file")));
  EXPECT_THAT(refused({"", "", prose}), HasSubstr("TLS CA " + prose + " can't be used: "));
  EXPECT_THAT(refused({prose, key, ""}), HasSubstr("TLS certificate " + prose + " can't be used: "));
  EXPECT_THAT(refused({crt, made.file("stranger.key"), ""}), HasSubstr("stranger.key can't be used: "));
  EXPECT_THAT(refused({crt, open_key, ""}), AllOf(HasSubstr("open.key"), HasSubstr("chmod o=")));
  EXPECT_THAT(refused({crt, "", ""}), HasSubstr("a TLS certificate needs its key"));
  EXPECT_THAT(refused({"", key, ""}), HasSubstr("a key its certificate"));
  EXPECT_TRUE(api_client::create("http://127.0.0.1:1", {"", {"", "", prose}}).ok()) << "without TLS none is read";
}

class client_stream : public ::testing::Test {
 protected:
  void start(const std::string& address, api_server_options options = {}) {
    api_ = *api_server::start(address, 0, plane_, std::move(options));
  }
  api_client client(const std::string& scheme = "http") const {
    return *api_client::create(scheme + "://127.0.0.1:" + std::to_string(api_->port()), {"", {"", "", ca_}});
  }
  // Emits an event when the stream has begun, and takes it for enough when it is there.
  void expect_an_event(const api_client& client) {
    std::string got;
    const auto outcome = client.stream("/v1/events", [&](std::string_view bytes) {
      if (got.empty()) plane_.emit({event_kind::branch_ready, "sb-1", "b1", {}});
      got += bytes;
      return got.find("\n\n", got.find("event: ")) == std::string::npos;
    });
    ASSERT_TRUE(outcome.ok()) << outcome.error().message();
    EXPECT_THAT(got, HasSubstr("event: branch.ready\n"));
  }

  temp_dir folder_;
  std::string ca_;
  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
};

TEST_F(client_stream, hands_on_events_as_they_come_until_there_are_enough) {
  start("127.0.0.1");
  expect_an_event(client());
}

TEST_F(client_stream, comes_over_a_unix_socket_and_over_tls_too) {
  const auto path = "unix:" + (folder_.path() / "api.sock").string();
  start(path);
  expect_an_event(*api_client::create(path));
  const certificates made;
  ca_ = made.file("ca.crt");
  start("127.0.0.1", {.tls = made.server(false)});
  expect_an_event(client("https"));
}

TEST_F(client_stream, may_last_longer_than_the_timeout_as_long_as_it_beats) {
  start("127.0.0.1", {.heartbeat = std::chrono::milliseconds(20)});
  auto patient = client();
  patient.set_timeout(std::chrono::milliseconds(200));
  const auto begin = std::chrono::steady_clock::now();
  const auto outcome = patient.stream("/v1/events", [&](std::string_view) {
    return std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(2500);
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error().message();
}

TEST_F(client_stream, that_falls_silent_is_given_up_on) {
  one_answer server("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: begins\n\n", false);
  auto patient = server.client();
  patient.set_timeout(std::chrono::seconds(1));
  std::string got;
  const auto outcome = patient.stream("/v1/events", [&](std::string_view bytes) {
    got += bytes;
    return true;
  });
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, errc::deadline_exceeded);
  EXPECT_THAT(outcome.error().message(), HasSubstr("was silent for 1000 ms"));
  EXPECT_EQ(got, ": begins\n\n");
}

TEST_F(client_stream, ends_well_when_the_server_stops) {
  start("127.0.0.1");
  const auto outcome = client().stream("/v1/events", [&](std::string_view) {
    api_->begin_stop();
    return true;
  });
  EXPECT_TRUE(outcome.ok()) << outcome.error().message();
}

TEST_F(client_stream, that_is_refused_is_the_servers_error_and_hands_on_nothing) {
  start("127.0.0.1");
  const auto nothing = [](std::string_view bytes) {
    ADD_FAILURE() << bytes;
    return true;
  };
  plane_.failure = error{errc::conflict, 0, "not now"};
  const auto refused = client().stream("/v1/snapshots", nothing);
  EXPECT_EQ(refused.error().code, errc::conflict);
  EXPECT_EQ(refused.error().message(), "not now");
  EXPECT_EQ(api_client::create("127.0.0.1:1")->stream("/v1/events", nothing).error().code, errc::unavailable);
}

}  // namespace
}  // namespace coppice
