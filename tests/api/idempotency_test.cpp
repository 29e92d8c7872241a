#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "api/idempotency_cache.hpp"
#include "api/server.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using decision = idempotency_cache::decision;

const sha256_digest one_request = sha256("one");
const sha256_digest another_request = sha256("another");

decision finished(idempotency_cache& cache, const std::string& key, const std::string& body,
                  idempotency_cache::clock::time_point now = idempotency_cache::clock::now()) {
  auto decided = cache.begin(key, one_request, now);
  if (decided.run) decided.run->finish({.status = 201, .body = body});
  return decided;
}

TEST(idempotency_cache, the_first_answer_is_given_again) {
  const auto cache = std::make_shared<idempotency_cache>();
  EXPECT_TRUE(finished(*cache, "k", "first").run);
  const auto again = finished(*cache, "k", "second");
  EXPECT_FALSE(again.run);
  EXPECT_EQ(again.answer.status, 201u);
  EXPECT_EQ(again.answer.body, "first");
  EXPECT_TRUE(again.answer.replayed);
}

TEST(idempotency_cache, a_key_is_for_one_request_and_not_while_that_is_in_flight) {
  const auto cache = std::make_shared<idempotency_cache>();
  auto running = cache->begin("k", one_request);
  ASSERT_TRUE(running.run);
  EXPECT_THAT(cache->begin("k", one_request).answer.body, HasSubstr("in flight"));
  EXPECT_EQ(cache->begin("k", one_request).answer.status, 409u);
  running.run->finish({.status = 201});
  EXPECT_THAT(cache->begin("k", another_request).answer.body, HasSubstr("another request"));
  EXPECT_EQ(cache->begin("k", another_request).answer.status, 409u);
}

TEST(idempotency_cache, a_request_that_failed_or_was_lost_may_be_tried_again) {
  const auto cache = std::make_shared<idempotency_cache>();
  for (const unsigned status : {400u, 404u, 409u, 500u, 503u}) {
    const auto decided = cache->begin("k", one_request);
    ASSERT_TRUE(decided.run) << status;
    decided.run->finish({.status = status});
  }
  EXPECT_TRUE(cache->begin("k", one_request).run);  // dropped unfinished
  EXPECT_TRUE(cache->begin("k", one_request).run);
}

TEST(idempotency_cache, an_answer_is_forgotten_after_its_age) {
  const auto cache = std::make_shared<idempotency_cache>();
  const auto now = idempotency_cache::clock::now();
  finished(*cache, "k", "first", now);
  EXPECT_FALSE(finished(*cache, "k", "x", now + std::chrono::hours(23)).run);
  EXPECT_TRUE(finished(*cache, "k", "x", now + std::chrono::hours(25)).run);
}

TEST(idempotency_cache, the_oldest_go_when_there_are_too_many_or_too_large_answers) {
  const auto few = std::make_shared<idempotency_cache>(idempotency_limits{.entries = 2});
  for (const char* key : {"a", "b", "c"}) EXPECT_TRUE(finished(*few, key, "x").run);
  EXPECT_FALSE(finished(*few, "c", "x").run);
  EXPECT_TRUE(finished(*few, "a", "x").run);
  const auto small = std::make_shared<idempotency_cache>(idempotency_limits{.bytes = 100});
  for (const char* key : {"a", "b", "c"}) EXPECT_TRUE(finished(*small, key, std::string(80, 'x')).run);
  EXPECT_TRUE(finished(*small, "a", "x").run);
}

TEST(idempotency_cache, requests_in_flight_are_never_dropped) {
  const auto cache = std::make_shared<idempotency_cache>(idempotency_limits{.entries = 2});
  const auto first = cache->begin("a", one_request);
  const auto second = cache->begin("b", one_request);
  EXPECT_EQ(cache->begin("c", one_request).answer.status, 503u);
  EXPECT_EQ(cache->begin("a", one_request).answer.status, 409u);
}

class idempotent_server : public ::testing::Test {
 protected:
  void SetUp() override { api_ = *api_server::start("127.0.0.1", 0, plane_); }
  // The whole answer to a POST with an Idempotency-Key.
  std::string post(const std::string& target, const std::string& key, const std::string& body) const {
    raw_client raw(api_->port());
    EXPECT_TRUE(raw.send("POST " + target + " HTTP/1.1\r\nConnection: close\r\nIdempotency-Key: " + key +
                         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body));
    return raw.read_until("");
  }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
};

TEST_F(idempotent_server, a_repeated_creation_happens_once) {
  int calls = 0;
  plane_.on_call = [&] { ++calls; };
  const std::vector<std::pair<std::string, std::string>> creations = {{"/v1/sandboxes", R"({"snapshot_tag":"a"})"},
                                                                      {"/v1/snapshots", R"({"tag":"a","kernel":"/k"})"},
                                                                      {"/v1/sandboxes/sb-1/branch", R"({"tag":"b"})"}};
  for (const auto& [target, body] : creations) {
    calls = 0;
    const auto first = post(target, "key" + target, body);
    EXPECT_THAT(first, AllOf(StartsWith("HTTP/1.1 201"), Not(HasSubstr("Idempotency-Replayed"))));
    const auto second = post(target, "key" + target, body);
    EXPECT_THAT(second, AllOf(StartsWith("HTTP/1.1 201"), HasSubstr("Idempotency-Replayed: true\r\n")));
    EXPECT_EQ(first.substr(first.find("\r\n\r\n")), second.substr(second.find("\r\n\r\n")));
    EXPECT_EQ(calls, 1);
  }
}

TEST_F(idempotent_server, what_was_refused_for_now_is_not_replayed) {
  const auto create = [this] { return post("/v1/sandboxes", "k", R"({"snapshot_tag":"a"})"); };
  plane_.failure = error{errc::conflict, 0, "snapshot 'a' is writing"};
  EXPECT_THAT(create(), StartsWith("HTTP/1.1 409"));
  plane_.failure = error{errc::not_found, 0, "there is no snapshot 'a'"};
  EXPECT_THAT(create(), AllOf(StartsWith("HTTP/1.1 404"), Not(HasSubstr("Replayed"))));
  plane_.failure.reset();
  EXPECT_THAT(create(), AllOf(StartsWith("HTTP/1.1 201"), Not(HasSubstr("Replayed"))));
  EXPECT_THAT(create(), AllOf(StartsWith("HTTP/1.1 201"), HasSubstr("Idempotency-Replayed: true")));
}

TEST_F(idempotent_server, a_key_for_another_body_path_or_route_is_409) {
  post("/v1/sandboxes/sb-1/branch", "k", "{}");
  EXPECT_THAT(post("/v1/sandboxes/sb-1/branch", "k", R"({"tag":"b"})"), StartsWith("HTTP/1.1 409"));
  EXPECT_THAT(post("/v1/sandboxes/sb-2/branch", "k", "{}"), StartsWith("HTTP/1.1 409"));
  EXPECT_THAT(post("/v1/sandboxes", "k", "{}"), StartsWith("HTTP/1.1 409"));
}

TEST_F(idempotent_server, a_repetition_while_the_first_is_in_flight_is_409_even_if_its_client_left) {
  plane_.hold = true;
  {
    raw_client leaving(api_->port());
    ASSERT_TRUE(
        leaving.send("POST /v1/sandboxes/a/branch HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n"));
    ASSERT_TRUE(plane_.wait_for_held(1));
  }
  EXPECT_THAT(post("/v1/sandboxes/a/branch", "k", ""), AllOf(StartsWith("HTTP/1.1 409"), HasSubstr("in flight")));
  plane_.release();
  EXPECT_THAT(post("/v1/sandboxes/a/branch", "k", ""),
              AllOf(StartsWith("HTTP/1.1 201"), HasSubstr("Idempotency-Replayed")));
}

TEST_F(idempotent_server, a_key_that_is_none_is_400_and_other_routes_take_no_key) {
  EXPECT_THAT(post("/v1/sandboxes/a/branch", "", ""), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(post("/v1/sandboxes/a/branch", std::string(256, 'k'), ""), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(post("/v1/sandboxes/a/branch", "a b", ""), StartsWith("HTTP/1.1 400"));
  plane_.report = verify_report{};
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(post("/v1/snapshots/a/verify", "k", ""), AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("Replayed"))));
  }
}

}  // namespace
}  // namespace coppice
