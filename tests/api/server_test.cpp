#include "api/server.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "api/openapi.hpp"
#include "client/client.hpp"
#include "tests/api/fake_agent.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class server : public ::testing::Test {
 protected:
  void start(api_server_options options = {}) {
    api_.reset();
    auto started = api_server::start("127.0.0.1", 0, plane_, std::move(options));
    ASSERT_TRUE(started.ok()) << started.error().message();
    api_ = *std::move(started);
  }
  void SetUp() override { start(); }

  api_client client() const { return *api_client::create("127.0.0.1:" + std::to_string(api_->port())); }
  http_answer send(std::string_view method, std::string_view target,
                   const std::optional<std::string>& body = {}) const {
    auto answer = client().send(method, target, body);
    EXPECT_TRUE(answer.ok()) << answer.error().message();
    return answer.ok() ? *answer : http_answer{};
  }
  std::string error_of(const http_answer& answer) const {
    const auto body = json::parse(answer.body, nullptr, false);
    return body.is_object() && body.contains("error") ? body["error"].get<std::string>() : "<none> " + answer.body;
  }
  void add_snapshot(const std::string& tag) { plane_.snapshots[tag].tag = tag; }
  void add_sandbox(const std::string& id) { plane_.sandboxes[id].id = id; }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
};

TEST_F(server, lists_snapshots_and_sandboxes) {
  add_snapshot("base");
  add_sandbox("sb-1");
  auto answer = send("GET", "/v1/snapshots");
  EXPECT_EQ(answer.status, 200u);
  EXPECT_EQ(json::parse(answer.body)[0]["tag"], "base");
  answer = send("GET", "/v1/sandboxes");
  EXPECT_EQ(json::parse(answer.body)[0]["id"], "sb-1");
}

TEST_F(server, creates_a_snapshot_with_201) {
  const auto answer = send("POST", "/v1/snapshots", R"({"tag":"base","kernel":"/k","memory_mib":64})");
  EXPECT_EQ(answer.status, 201u);
  ASSERT_TRUE(plane_.created_snapshot);
  EXPECT_EQ(plane_.created_snapshot->memory_bytes, 64 * mib);
  EXPECT_EQ(json::parse(answer.body)["memory_bytes"], 64 * mib);
}

TEST_F(server, tells_of_one_snapshot_and_deletes_it_with_204) {
  add_snapshot("base");
  EXPECT_EQ(send("GET", "/v1/snapshots/base/info").status, 200u);
  const auto answer = send("DELETE", "/v1/snapshots/base");
  EXPECT_EQ(answer.status, 204u);
  EXPECT_EQ(answer.body, "");
  EXPECT_EQ(send("GET", "/v1/snapshots/base/info").status, 404u);
  EXPECT_EQ(send("DELETE", "/v1/snapshots/base").status, 404u);
}

TEST_F(server, verifies_a_snapshot) {
  plane_.report = verify_report{.tag = "b1", .ok = false, .bad_chunks = 2};
  const auto answer = send("POST", "/v1/snapshots/b1/verify");
  EXPECT_EQ(answer.status, 200u);
  EXPECT_EQ(json::parse(answer.body)["bad_chunks"], 2);
  EXPECT_EQ(json::parse(answer.body)["ok"], false);
}

TEST_F(server, creates_sandboxes_with_201_and_a_list) {
  const auto answer = send("POST", "/v1/sandboxes", R"({"snapshot_tag":"base","n":3})");
  EXPECT_EQ(answer.status, 201u);
  EXPECT_EQ(json::parse(answer.body).size(), 3u);
}

TEST_F(server, tells_of_one_sandbox_and_deletes_it) {
  add_sandbox("sb-1");
  EXPECT_EQ(json::parse(send("GET", "/v1/sandboxes/sb-1").body)["id"], "sb-1");
  EXPECT_EQ(send("DELETE", "/v1/sandboxes/sb-1").status, 204u);
  EXPECT_EQ(send("GET", "/v1/sandboxes/sb-1").status, 404u);
}

TEST_F(server, a_branch_is_201_when_ready_and_202_while_writing) {
  auto answer = send("POST", "/v1/sandboxes/sb-1/branch", R"({"tag":"b1","mode":"live"})");
  EXPECT_EQ(answer.status, 201u);
  EXPECT_EQ(json::parse(answer.body)["pause_ms"], 2);
  EXPECT_EQ(json::parse(answer.body)["branched_from"], "sb-1");
  plane_.branch_status = snapshot_status::writing;
  answer = send("POST", "/v1/sandboxes/sb-1/branch", R"({"wait":false})");
  EXPECT_EQ(answer.status, 202u);
  EXPECT_EQ(json::parse(answer.body)["status"], "writing");
  ASSERT_TRUE(plane_.branched);
  EXPECT_FALSE(plane_.branched->wait);
}

TEST_F(server, a_branch_needs_no_body) {
  EXPECT_EQ(send("POST", "/v1/sandboxes/sb-1/branch").status, 201u);
}

TEST_F(server, the_journal_is_reset_only_on_request) {
  const auto answer = send("GET", "/v1/sandboxes/sb-1/journal");
  EXPECT_EQ(json::parse(answer.body), json({{"steps", 42}, {"gaps", 0}, {"longest_stall_ns", 1500}}));
  EXPECT_EQ(plane_.journal_reset, false);
  EXPECT_EQ(send("GET", "/v1/sandboxes/sb-1/journal?reset=true").status, 200u);
  EXPECT_EQ(plane_.journal_reset, true);
  EXPECT_EQ(send("GET", "/v1/sandboxes/sb-1/journal?reset=1").status, 400u);
  EXPECT_THAT(error_of(send("GET", "/v1/sandboxes/sb-1/journal?rest=true")), HasSubstr("known is reset"));
}

TEST_F(server, a_snapshot_is_deleted_with_its_descendants_only_on_request) {
  for (const auto& [query, cascade] :
       std::vector<std::pair<std::string, bool>>{{"", false}, {"?force=true", false}, {"?cascade=true", true}}) {
    add_snapshot("base");
    EXPECT_EQ(send("DELETE", "/v1/snapshots/base" + query).status, 204u);
    EXPECT_EQ(plane_.deleted_with_descendants, cascade) << query;
  }
  EXPECT_THAT(error_of(send("DELETE", "/v1/snapshots/base?cascade=true&force=true")), HasSubstr("one of them"));
  EXPECT_THAT(error_of(send("DELETE", "/v1/snapshots/base?force=true&force=true")), HasSubstr("twice"));
}

TEST_F(server, what_needs_an_agent_in_the_guest_is_409_with_the_reason) {
  add_sandbox("sb-1");
  const std::vector<std::pair<const char*, const char*>> calls = {
      {"exec", R"({"args":["ls"],"timeout_secs":30})"}, {"eval", R"({"code":"1"})"}, {"ping", ""}};
  for (const auto& [what, body] : calls) {
    const auto answer = send("POST", std::string("/v1/sandboxes/sb-1/") + what, body);
    EXPECT_EQ(answer.status, 409u) << what;
    EXPECT_THAT(error_of(answer), AllOf(StartsWith(what), HasSubstr("no guest address")));
    EXPECT_EQ(send("POST", std::string("/v1/sandboxes/sb-2/") + what, body).status, 404u) << what;
  }
  EXPECT_EQ(send("POST", "/v1/sandboxes/sb-1/exec", R"({"args":[]})").status, 400u);
  EXPECT_EQ(send("POST", "/v1/sandboxes/sb-1/exec", R"({"args":[1]})").status, 400u);
  EXPECT_EQ(send("POST", "/v1/sandboxes/sb-1/eval", "{}").status, 400u);
}

TEST_F(server, exec_eval_and_ping_are_passed_on_to_the_agent_in_the_guest) {
  add_sandbox("sb-1");
  struct exchange {
    const char* what;
    const char* body;
    json heard;
    const char* says;
    json answer;
  };
  const std::vector<exchange> exchanges = {
      {"exec",
       R"({"args":["ls","-l"],"timeout_secs":7})",
       {{"action", "exec"}, {"args", {"ls", "-l"}}, {"timeout", 7}},
       R"({"stdout":"a\n","stderr":"b","exit_code":3})",
       {{"stdout", "a\n"}, {"stderr", "b"}, {"exit_code", 3}}},
      {"exec",
       R"({"args":["none"]})",
       {{"action", "exec"}, {"args", {"none"}}, {"timeout", 30}},
       R"({"error":"no such program"})",
       {{"stdout", ""}, {"stderr", "no such program"}, {"exit_code", 1}, {"error", "no such program"}}},
      {"eval",
       R"({"code":"1+1"})",
       {{"action", "eval"}, {"code", "1+1"}},
       R"({"result":"2"})",
       {{"result", "2"}, {"error", nullptr}, {"exit_code", 0}}},
      {"eval",
       R"({"code":"?"})",
       {{"action", "eval"}, {"code", "?"}},
       R"({"error":"SyntaxError"})",
       {{"result", nullptr}, {"error", "SyntaxError"}, {"exit_code", 1}}},
      {"ping", "", {{"action", "ping"}}, R"({"pong":true})", {{"pong", true}}},
  };
  for (const auto& each : exchanges) {
    fake_agent guest(each.says);
    plane_.guest_port = guest.port();
    const auto answer = send("POST", std::string("/v1/sandboxes/sb-1/") + each.what, each.body);
    EXPECT_EQ(answer.status, 200u) << answer.body;
    EXPECT_EQ(json::parse(answer.body, nullptr, false), each.answer) << answer.body;
    EXPECT_EQ(guest.heard(), each.heard);
  }
}

TEST_F(server, an_agent_that_cannot_be_understood_or_reached_is_503_with_the_reason) {
  add_sandbox("sb-1");
  const std::string deep = R"({"deep":)" + std::string(mib, '[') + std::string(mib, ']') + "}";
  for (const auto& [says, reason] :
       std::vector<std::pair<std::string, std::string>>{{"", "closed the connection"},
                                                        {"pong", "no JSON"},
                                                        {"[1]", "no JSON object"},
                                                        {deep, "nested too deep"},
                                                        {std::string(17 * mib, ' '), "sends more than 16.0 MiB"}}) {
    fake_agent guest(says);
    plane_.guest_port = guest.port();
    const auto answer = send("POST", "/v1/sandboxes/sb-1/ping");
    EXPECT_EQ(answer.status, 503u) << reason;
    EXPECT_THAT(error_of(answer), AllOf(StartsWith("ping: "), HasSubstr(reason)));
  }
  plane_.guest_port = 1;  // nobody listens there
  const auto answer = send("POST", "/v1/sandboxes/sb-1/ping");
  EXPECT_EQ(answer.status, 503u);
  EXPECT_THAT(error_of(answer), HasSubstr("cannot reach the agent at 127.0.0.1:1"));
}

TEST_F(server, tells_health_version_and_metrics) {
  EXPECT_EQ(json::parse(send("GET", "/healthz").body)["status"], "ok");
  const auto version = json::parse(send("GET", "/version").body);
  EXPECT_EQ(version["name"], "coppiced");
  EXPECT_EQ(version["vmm"]["missing_for_live"], json({"PUT /uffd/wp"}));
  EXPECT_EQ(send("GET", "/metrics").body, "# HELP up\nup 1\n");
}

TEST_F(server, every_kind_of_failure_has_its_status_and_its_sentence) {
  const std::vector<std::pair<errc, unsigned>> wanted = {{errc::invalid_argument, 400}, {errc::not_found, 404},
                                                         {errc::already_exists, 409},   {errc::conflict, 409},
                                                         {errc::unsupported, 409},      {errc::unavailable, 503},
                                                         {errc::no_space, 503},         {errc::deadline_exceeded, 503},
                                                         {errc::cancelled, 409},        {errc::io, 500},
                                                         {errc::corrupt, 500},          {errc::internal, 500}};
  const std::vector<std::pair<const char*, const char*>> calls = {
      {"GET", "/v1/snapshots"},           {"GET", "/v1/snapshots/a/info"},    {"DELETE", "/v1/snapshots/a"},
      {"POST", "/v1/snapshots/a/verify"}, {"GET", "/v1/sandboxes"},           {"GET", "/v1/sandboxes/a"},
      {"DELETE", "/v1/sandboxes/a"},      {"GET", "/v1/sandboxes/a/journal"}, {"POST", "/v1/sandboxes/a/branch"}};
  plane_.report = verify_report{};
  for (const auto& [code, status] : wanted) {
    plane_.failure = error{code, 0, "it went wrong"};
    for (const auto& [method, target] : calls) {
      const auto answer = send(method, target);
      EXPECT_EQ(answer.status, status) << method << target;
      EXPECT_EQ(error_of(answer), "it went wrong");
      EXPECT_EQ(json::parse(answer.body)["code"], to_string(code));
    }
  }
}

TEST_F(server, an_unknown_route_is_404) {
  for (const char* target :
       {"/", "/v1", "/v2/snapshots", "/v1/snapshots/a", "/v1/snapshots/a/b/info", "/v1/snapshots/"}) {
    const auto answer = send("GET", target);
    EXPECT_TRUE(answer.status == 404 || answer.status == 405) << target << answer.status;
  }
  EXPECT_THAT(error_of(send("GET", "/nowhere")), HasSubstr("no such route: /nowhere"));
  EXPECT_EQ(send("GET", "/nowhere").status, 404u);
}

TEST_F(server, a_wrong_method_is_405_with_those_that_are_allowed) {
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("PUT /v1/snapshots HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  const auto answer = raw.read_until("");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(answer, HasSubstr("Allow: GET, POST\r\n"));
}

TEST_F(server, a_bad_tag_in_the_path_never_reaches_the_control_plane) {
  int calls = 0;
  plane_.on_call = [&] { ++calls; };
  for (const char* target : {"/v1/snapshots/..%2fx", "/v1/snapshots/", "/v1/snapshots/..", "/v1/snapshots/%00",
                             "/v1/snapshots/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    const auto answer = send("DELETE", target);
    EXPECT_EQ(answer.status, 400u) << target;
    EXPECT_THAT(error_of(answer), HasSubstr("bad tag"));
  }
  EXPECT_EQ(send("DELETE", "/v1/sandboxes/..%2fx").status, 404u);
  EXPECT_EQ(calls, 0);
}

TEST_F(server, bad_bodies_are_400_with_the_reason) {
  EXPECT_THAT(error_of(send("POST", "/v1/sandboxes", "{")), HasSubstr("line 1, column 2"));
  EXPECT_THAT(error_of(send("POST", "/v1/sandboxes", R"({"snapshot_tag":"a","n":0})")), HasSubstr("1 to 1000"));
  EXPECT_THAT(error_of(send("POST", "/v1/sandboxes/a/branch", R"({"mode":"live","diff":true})")),
              HasSubstr("not both"));
  EXPECT_EQ(send("POST", "/v1/snapshots", "{}").status, 400u);
}

TEST_F(server, a_body_over_the_limit_is_413_though_the_client_goes_on_sending) {
  const auto answer = send("POST", "/v1/snapshots", std::string(4 * mib, ' '));
  EXPECT_EQ(answer.status, 413u);
  EXPECT_THAT(error_of(answer), HasSubstr("1.0 MiB"));
  EXPECT_EQ(send("POST", "/v1/sandboxes/a/branch", std::string(mib, ' ')).status, 201u);  // just at the limit
}

TEST_F(server, a_chunked_body_over_the_limit_is_413) {
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
  const std::string chunk = "40000\r\n" + std::string(0x40000, ' ') + "\r\n";
  for (int i = 0; i < 6 && raw.send(chunk); ++i) {
  }
  EXPECT_THAT(raw.read_until("}"), StartsWith("HTTP/1.1 413"));
}

TEST_F(server, a_header_over_the_limit_is_431) {
  raw_client raw(api_->port());
  raw.send("GET /healthz HTTP/1.1\r\nX-Long: " + std::string(40'000, 'x') + "\r\n\r\n");
  EXPECT_THAT(raw.read_until("}"), StartsWith("HTTP/1.1 431"));
}

TEST_F(server, what_is_no_http_is_400_and_closed) {
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("\x16\x03\x01 hello\r\n\r\n"));
  EXPECT_THAT(raw.read_until(""), AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("malformed")));
}

TEST_F(server, a_connection_serves_many_requests) {
  raw_client raw(api_->port());
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(raw.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
    ASSERT_THAT(raw.read_until("}\n"), StartsWith("HTTP/1.1 200"));
  }
}

TEST_F(server, pipelined_requests_are_answered_in_order) {
  raw_client raw(api_->port());
  ASSERT_TRUE(
      raw.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  const auto answers = raw.read_until("");
  EXPECT_THAT(answers, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("HTTP/1.1 404")));
}

TEST_F(server, a_refusal_of_head_has_no_body) {
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("HEAD /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"));
  EXPECT_THAT(raw.read_until("\r\n\r\n"), AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET\r\n")));
  EXPECT_THAT(raw.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200 ")) << "the next answer follows at once";
}

TEST_F(server, the_description_of_the_api_is_served) {
  EXPECT_EQ(json::parse(send("GET", "/v1/openapi.json").body), openapi_document());
}

TEST_F(server, a_client_that_expects_100_continue_gets_it) {
  raw_client raw(api_->port());
  ASSERT_TRUE(
      raw.send("POST /v1/sandboxes/a/branch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: "
               "100-continue\r\nConnection: close\r\n\r\n"));
  EXPECT_THAT(raw.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 100"));
  ASSERT_TRUE(raw.send("{}"));
  EXPECT_THAT(raw.read_until(""), HasSubstr("HTTP/1.1 201"));
}

TEST_F(server, a_client_that_never_finishes_its_header_is_hung_up_on) {
  start({.limits = {.idle_timeout = std::chrono::milliseconds(100)}});
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("GET /healthz HT"));
  EXPECT_EQ(raw.read_until(""), "");
}

TEST_F(server, a_client_that_never_finishes_its_body_is_hung_up_on) {
  start({.limits = {.body_timeout = std::chrono::milliseconds(100)}});
  raw_client raw(api_->port());
  ASSERT_TRUE(raw.send("POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"));
  EXPECT_EQ(raw.read_until(""), "");
}

TEST_F(server, a_slow_client_holds_up_nobody) {
  raw_client slow(api_->port());
  ASSERT_TRUE(slow.send("POST /v1/snapshots HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"));
  EXPECT_EQ(send("GET", "/healthz").status, 200u);
}

TEST_F(server, a_request_that_waits_holds_up_nobody) {
  plane_.hold = true;
  std::thread waiting([&] { EXPECT_EQ(send("POST", "/v1/sandboxes/a/branch").status, 201u); });
  ASSERT_TRUE(plane_.wait_for_held(1));
  EXPECT_EQ(send("GET", "/healthz").status, 200u);
  plane_.release();
  waiting.join();
}

TEST_F(server, a_client_that_leaves_before_its_answer_harms_nobody) {
  plane_.hold = true;
  {
    raw_client leaving(api_->port());
    ASSERT_TRUE(leaving.send("GET /v1/snapshots HTTP/1.1\r\nHost: x\r\n\r\n"));
    ASSERT_TRUE(plane_.wait_for_held(1));
  }
  plane_.release();
  EXPECT_EQ(send("GET", "/healthz").status, 200u);
}

TEST_F(server, many_clients_at_once_each_get_their_own_answer) {
  plane_.from_another_thread = true;
  for (int i = 0; i < 16; ++i) add_sandbox("sb-" + std::to_string(i));
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&, id = "sb-" + std::to_string(i)] {
      for (int round = 0; round < 10; ++round) {
        const auto answer = send("GET", "/v1/sandboxes/" + id);
        EXPECT_EQ(answer.status, 200u);
        EXPECT_EQ(json::parse(answer.body)["id"], id);
      }
    });
  }
  for (auto& thread : clients) thread.join();
}

TEST_F(server, connections_over_the_limit_are_told_so) {
  std::vector<connection_record::change> seen;
  std::mutex mutex;
  start({.limits = {.connections = 1}, .on_connection = [&](const connection_record& connection) {
           const std::lock_guard lock(mutex);
           EXPECT_THAT(std::string(connection.peer), StartsWith("127.0.0.1:"));
           EXPECT_EQ(connection.open, connection.what == connection_record::change::closed ? 0U : 1U);
           seen.push_back(connection.what);
         }});
  raw_client first(api_->port());
  ASSERT_TRUE(first.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
  ASSERT_THAT(first.read_until("}\n"), StartsWith("HTTP/1.1 200"));
  raw_client second(api_->port());
  const auto answer = second.read_until("");
  EXPECT_THAT(answer,
              AllOf(StartsWith("HTTP/1.1 503"), ::testing::EndsWith("\r\n\r\n{\"error\": \"too many connections\"}")));
  api_.reset();
  using change = connection_record::change;
  EXPECT_THAT(seen, ::testing::ElementsAre(change::opened, change::refused, change::closed));
}

TEST_F(server, new_limits_hold_for_what_begins_from_then_on) {
  const auto post = [](raw_client& client) {
    client.send("POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + std::string(2000, ' '));
    return client.read_until("}\n");
  };
  raw_client first(api_->port());
  EXPECT_THAT(post(first), StartsWith("HTTP/1.1 400"));  // a blank body names no snapshot
  api_->set_limits({.body_bytes = 1000, .connections = 1});
  EXPECT_THAT(raw_client(api_->port()).read_until(""), HasSubstr("too many connections"));
  auto answer = post(first);  // which it may have begun to wait for under the old limits
  if (answer.starts_with("HTTP/1.1 400")) answer = post(first);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413"));
}

TEST_F(server, each_answer_is_reported_with_its_route) {
  std::vector<std::string> seen;
  std::mutex mutex;
  start({.on_request = [&](const request_record& request) {
    const std::lock_guard lock(mutex);
    EXPECT_GE(request.took.count(), 0.0);
    EXPECT_FALSE(request.id.empty());
    seen.push_back(std::string(request.method) + " " + std::string(request.route) + " " + std::string(request.target) +
                   " " + std::to_string(request.status));
  }});
  send("GET", "/v1/sandboxes/sb-9");
  send("GET", "/nowhere/1");
  const std::lock_guard lock(mutex);
  EXPECT_EQ(seen,
            (std::vector<std::string>{"GET /v1/sandboxes/{id} /v1/sandboxes/sb-9 404", "GET none /nowhere/1 404"}));
}

TEST_F(server, a_sane_request_id_comes_back_in_the_answer) {
  for (const char* id : {"a", "job-7.step_2", "0123456789012345678901234567890123456789012345678901234567890123"}) {
    raw_client raw(api_->port());
    ASSERT_TRUE(raw.send("GET /nowhere HTTP/1.1\r\nX-Request-Id: " + std::string(id) + "\r\n\r\n"));
    EXPECT_THAT(raw.read_until("}\n"), HasSubstr("X-Request-Id: " + std::string(id) + "\r\n"));
  }
}

TEST_F(server, every_answer_has_a_request_id_and_a_bad_one_is_replaced) {
  for (const auto& sent : std::vector<std::string>{
           "GET /healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/1.1\r\nX-Request-Id: a b\r\n\r\n",
           "GET /healthz HTTP/1.1\r\nX-Request-Id: " + std::string(65, 'a') + "\r\n\r\n",
           "GET /v1/snapshots/x/info HTTP/1.1\r\n\r\n", "DELETE /healthz HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n",
           "GET /healthz HTTP/1.1\r\nX-Long: " + std::string(40'000, 'x') + "\r\n\r\n"}) {
    raw_client raw(api_->port());
    raw.send(sent);
    EXPECT_THAT(raw.read_until("}\n"), ::testing::ContainsRegex("X-Request-Id: [0-9a-f]{16}\r\n"));
  }
}

TEST_F(server, an_address_in_use_is_a_conflict_that_names_it) {
  const auto second = api_server::start("127.0.0.1", api_->port(), plane_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, errc::conflict);
  EXPECT_THAT(second.error().message(),
              AllOf(HasSubstr("127.0.0.1:" + std::to_string(api_->port())), HasSubstr("--listen")));
}

TEST_F(server, an_address_that_is_none_is_refused) {
  EXPECT_EQ(api_server::start("localhosst", 0, plane_).error().code, errc::invalid_argument);
  EXPECT_EQ(api_server::start("192.0.2.1", 0, plane_).error().code, errc::io);
}

TEST_F(server, stopping_waits_for_the_answer_that_is_due) {
  plane_.hold = true;
  std::thread waiting([&] { EXPECT_EQ(send("GET", "/v1/snapshots").status, 200u); });
  ASSERT_TRUE(plane_.wait_for_held(1));
  raw_client idle(api_->port());
  api_->begin_stop();
  EXPECT_EQ(idle.read_until(""), "");  // the idle one is hung up on at once
  plane_.release();
  api_->stop(std::chrono::seconds(20));
  waiting.join();
}

TEST_F(server, stopping_gives_up_on_an_answer_that_does_not_come_and_a_late_one_is_dropped) {
  plane_.hold = true;
  std::thread waiting([&] {
    const auto answer = client().send("GET", "/v1/snapshots");
    EXPECT_FALSE(answer.ok());
  });
  ASSERT_TRUE(plane_.wait_for_held(1));
  api_->stop(std::chrono::milliseconds(50));
  waiting.join();
  api_.reset();
  plane_.release();
}

}  // namespace
}  // namespace coppice
