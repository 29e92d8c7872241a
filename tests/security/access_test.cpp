// Tokens: who has none is not served, who may only read changes nothing.
#include "api/access.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "api/routes.hpp"
#include "api/server.hpp"
#include "cli/client_options.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string reader = "reader-token-0123456789";
const std::string writer = "writer-token-0123456789";
const std::string both = "watch read " + reader + "  # Prometheus\n\n# people\nops write " + writer + "\n";

std::string source(const std::string& file) {
  std::ifstream stream(std::string(COPPICE_SOURCES) + "/" + file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

TEST(token_set, names_the_caller_and_its_role) {
  const auto tokens = token_set::parse(both, "file");
  ASSERT_TRUE(tokens.ok()) << tokens.error().message();
  EXPECT_EQ(tokens->size(), 2u);
  EXPECT_EQ(tokens->find(reader)->name, "watch");
  EXPECT_EQ(tokens->find(reader)->role, access_role::read);
  EXPECT_EQ(tokens->find(writer)->role, access_role::write);
}

TEST(token_set, knows_no_beginning_ending_or_other_case_of_a_token) {
  const auto tokens = *token_set::parse(both, "file");
  for (const std::string& wrong : {std::string(), reader.substr(1), reader.substr(0, reader.size() - 1), reader + "x",
                                   reader + std::string(1, '\0'), "R" + reader.substr(1), std::string("watch")}) {
    EXPECT_FALSE(tokens.find(wrong)) << wrong;
  }
}

TEST(token_set, a_file_that_is_wrong_is_refused_without_telling_what_stands_there) {
  for (const std::string& text :
       std::vector<std::string>{"", "# none\n", "a read\n", "a admin " + reader, "a read short", "../a read " + reader,
                                "a read " + reader + "\na read " + writer, "a read " + reader + "\nb write " + reader,
                                "a read " + reader + " more"}) {
    const auto tokens = token_set::parse(text, "the-file");
    ASSERT_FALSE(tokens.ok()) << text;
    EXPECT_THAT(tokens.error().message(), AllOf(HasSubstr("the-file"), Not(HasSubstr(reader))));
  }
}

TEST(token_set, a_file_that_everybody_can_read_is_refused) {
  temp_dir folder;
  const auto file = folder.path() / "tokens";
  std::ofstream(file) << both;
  ::chmod(file.c_str(), 0644);
  EXPECT_THAT(token_set::load(file).error().message(), HasSubstr("chmod o="));
  ::chmod(file.c_str(), 0640);
  EXPECT_TRUE(token_set::load(file).ok());
}

// How long a comparison takes can't be measured well enough on a busy machine to rely on: what is used is looked up.
TEST(token_set, compares_digests_in_constant_time_and_never_stops_at_the_first) {
  EXPECT_THAT(source("api/digest.cpp"), HasSubstr("CRYPTO_memcmp(left.data(), right.data(), left.size())"));
  const auto access = source("api/access.cpp");
  EXPECT_THAT(access, HasSubstr("return find(sha256(token));"));
  const auto find = access.substr(access.find("token_set::find(const sha256_digest&"));
  const auto loop = find.substr(0, find.find("if (found == nullptr)"));
  EXPECT_THAT(loop, AllOf(HasSubstr("equal_in_constant_time(known.digest, token)"), Not(HasSubstr("break")),
                          Not(HasSubstr("return"))));
}

class guarded_server : public ::testing::Test {
 protected:
  void SetUp() override {
    api_server_options options;
    options.tokens = std::make_shared<const token_set>(*token_set::parse(both, "file"));
    options.on_request = [this](const request_record& request) {
      const std::lock_guard lock(mutex_);
      who_.emplace_back(request.who);
    };
    plane_.report = verify_report{};
    plane_.on_call = [this] { ++calls_; };
    api_ = *api_server::start("127.0.0.1", 0, plane_, std::move(options));
  }
  http_answer send(const std::string& token, std::string_view method, std::string_view target,
                   const std::optional<std::string>& body = {}) const {
    const auto client = *api_client::create("127.0.0.1:" + std::to_string(api_->port()), {token, {}});
    auto answer = client.send(method, target, body);
    EXPECT_TRUE(answer.ok());
    return answer.ok() ? *answer : http_answer{};
  }

  const std::vector<std::pair<const char*, const char*>> reads = {{"GET", "/metrics"},
                                                                  {"GET", "/v1/openapi.json"},
                                                                  {"GET", "/v1/snapshots"},
                                                                  {"GET", "/v1/snapshots/a/info"},
                                                                  {"GET", "/v1/sandboxes"},
                                                                  {"GET", "/v1/sandboxes/sb-1"},
                                                                  {"GET", "/v1/sandboxes/sb-1/journal"}};
  const std::vector<std::pair<const char*, const char*>> writes = {
      {"POST", "/v1/snapshots"},           {"DELETE", "/v1/snapshots/a"},       {"POST", "/v1/snapshots/a/verify"},
      {"POST", "/v1/sandboxes"},           {"DELETE", "/v1/sandboxes/sb-1"},    {"POST", "/v1/sandboxes/sb-1/branch"},
      {"POST", "/v1/sandboxes/sb-1/exec"}, {"POST", "/v1/sandboxes/sb-1/eval"}, {"POST", "/v1/sandboxes/sb-1/ping"}};

  fake_control_plane plane_;
  std::atomic<int> calls_{0};
  std::mutex mutex_;
  std::vector<std::string> who_;
  std::unique_ptr<api_server> api_;
};

TEST_F(guarded_server, serves_nothing_but_health_and_version_without_a_known_token) {
  for (const std::string& token : {std::string(), std::string("wrong-token-0123456789"), reader + "x"}) {
    for (const auto* routes : {&reads, &writes}) {
      for (const auto& [method, target] : *routes) EXPECT_EQ(send(token, method, target).status, 401u) << target;
    }
    EXPECT_EQ(send(token, "GET", "/v1/events").status, 401u);
    EXPECT_EQ(send(token, "GET", "/no/such/route").status, 401u) << "what routes there are is none of its business";
    EXPECT_EQ(send(token, "PUT", "/v1/snapshots").status, 401u);
    EXPECT_EQ(send(token, "GET", "/healthz").status, 200u);
    EXPECT_EQ(send(token, "GET", "/version").status, 200u);
  }
  EXPECT_EQ(calls_, 0) << "nothing reached the control plane";
}

TEST_F(guarded_server, a_token_that_may_read_changes_nothing) {
  for (const auto& [method, target] : writes) {
    const auto answer = send(reader, method, target, R"({"tag":"a"})");
    EXPECT_EQ(answer.status, 403u) << method << target;
    EXPECT_THAT(answer.body, AllOf(HasSubstr("watch"), Not(HasSubstr(reader))));
  }
  EXPECT_EQ(send(reader, "GET", "/v1/sandboxes/sb-1/journal?reset=true").status, 403u)
      << "it forgets the longest stall";
  EXPECT_EQ(calls_, 0);
  EXPECT_NE(send(reader, "GET", "/v1/sandboxes/sb-1/journal?reset=false").status, 403u);
  for (const auto& [method, target] : reads)
    EXPECT_THAT(send(reader, method, target).status, ::testing::AnyOf(200u, 404u));
}

TEST_F(guarded_server, a_token_that_may_write_does_everything) {
  for (const auto* routes : {&reads, &writes}) {
    for (const auto& [method, target] : *routes) {
      EXPECT_THAT(send(writer, method, target).status, Not(::testing::AnyOf(401u, 403u))) << target;
    }
  }
}

TEST_F(guarded_server, only_a_bearer_is_heard_and_a_refusal_says_so) {
  for (const std::string& header :
       std::vector<std::string>{"Basic " + writer, "Bearer", "Bearer  " + writer, writer, "Bearer " + writer + "x"}) {
    raw_client raw(api_->port());
    raw.send("GET /v1/snapshots HTTP/1.1\r\nAuthorization: " + header + "\r\n\r\n");
    EXPECT_THAT(raw.read_until("}\n"), AllOf(HasSubstr(" 401 "), HasSubstr("WWW-Authenticate: Bearer"))) << header;
  }
  raw_client raw(api_->port());
  raw.send("GET /v1/snapshots HTTP/1.1\r\nauthorization: bEaReR " + writer + "\r\n\r\n");
  EXPECT_THAT(raw.read_until("]\n"), HasSubstr(" 200 "));
}

TEST_F(guarded_server, a_token_counts_from_the_next_request_after_it_was_replaced) {
  raw_client raw(api_->port());
  const std::string request = "GET /v1/snapshots HTTP/1.1\r\nAuthorization: Bearer " + writer + "\r\n\r\n";
  raw.send(request);
  EXPECT_THAT(raw.read_until("]\n"), HasSubstr(" 200 "));
  api_->set_tokens(std::make_shared<const token_set>(*token_set::parse("ops write another-token-0123456789", "file")));
  raw.send(request);
  EXPECT_THAT(raw.read_until("}\n"), HasSubstr(" 401 ")) << "also on a connection that was open";
  EXPECT_EQ(send("another-token-0123456789", "GET", "/v1/snapshots").status, 200u);
}

TEST_F(guarded_server, one_callers_idempotency_key_does_not_give_away_anothers_answer) {
  api_->set_tokens(std::make_shared<const token_set>(
      *token_set::parse("one write " + writer + "\nother write another-token-0123456789", "file")));
  const auto post = [&](const std::string& token) {
    raw_client raw(api_->port());
    raw.send("POST /v1/sandboxes/a/branch HTTP/1.1\r\nAuthorization: Bearer " + token +
             "\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n");
    return raw.read_until("}\n");
  };
  EXPECT_THAT(post(writer), HasSubstr(" 201 "));
  EXPECT_THAT(post("another-token-0123456789"), Not(HasSubstr("Replayed")));
  EXPECT_EQ(calls_, 2);
}

TEST_F(guarded_server, each_request_is_recorded_with_who_sent_it) {
  send(reader, "GET", "/v1/snapshots");
  send("", "GET", "/v1/snapshots");
  send(writer, "GET", "/healthz");
  send(writer, "POST", "/v1/snapshots", std::string(2 * mib, ' '));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(who_, (std::vector<std::string>{"watch", "none", "ops", "ops"})) << "too large a body is somebody's, too";
}

TEST(recordable_target, holds_no_token_and_stays_short) {
  for (const char* target :
       {"/v1/snapshots", "/v1/snapshots/a?cascade=true", "/v1/snapshots/a?cascade=true&force=false", "/x?"}) {
    EXPECT_EQ(recordable_target(target), target);
  }
  for (const std::string& query :
       {"token=" + writer, writer, writer + "=true", "cascade=true&" + writer, "cascade=" + writer}) {
    EXPECT_EQ(recordable_target("/v1/snapshots?" + query), "/v1/snapshots?...");
  }
  EXPECT_EQ(recordable_target("/" + std::string(10'000, 'x')).size(), 200u);
}

TEST(read_token, takes_a_bare_token_or_a_line_of_the_daemons_file) {
  temp_dir folder;
  const auto file = (folder.path() / "token").string();
  std::ofstream(file) << "# mine\n" << writer << "\n";
  EXPECT_EQ(*read_token(file), writer);
  std::ofstream(file) << "ops write " << writer << " # people\n";
  EXPECT_EQ(*read_token(file), writer);
  std::ofstream(file) << "\n";
  EXPECT_EQ(read_token(file).error().code, errc::invalid_argument);
  EXPECT_EQ(read_token(file + "x").error().code, errc::not_found);
}

}  // namespace
}  // namespace coppice
