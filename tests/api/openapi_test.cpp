#include "api/openapi.hpp"

#include <gmock/gmock.h>

#include <set>
#include <sstream>

#include "api/agent_protocol.hpp"
#include "api/event_log.hpp"
#include "api/json.hpp"
#include "api/route_table.hpp"
#include "api/schemas.hpp"
#include "api/server.hpp"

namespace coppice {
namespace {

using names = std::set<std::string>;
using nlohmann::json;
using ::testing::Contains;

names fields(const json& object) {
  names found;
  for (const auto& item : object.items()) found.insert(item.key());
  return found;
}

names required(const std::string& schema) {
  return api_schemas().at(schema).at("required").get<names>();
}

names described(const std::string& schema) {
  return fields(api_schemas().at(schema).at("properties"));
}

names both(names left, const names& right) {
  left.insert(right.begin(), right.end());
  return left;
}

// The fields that a parser knows, as it tells them when it meets another one.
template <class T>
names known(const result<T>& refused) {
  const std::string message = refused.error().message();
  std::istringstream list(message.substr(message.find("known are ") + 10));
  names found;
  for (std::string name; std::getline(list >> std::ws, name, ',');) found.insert(name);
  return found;
}

void expect_references_lead_somewhere(const json& part) {
  if (part.is_object() && part.contains("$ref")) {
    const json::json_pointer target(part["$ref"].get<std::string>().substr(1));
    EXPECT_TRUE(openapi_document().contains(target)) << part;
  }
  if (!part.is_structured()) return;
  for (const auto& item : part) expect_references_lead_somewhere(item);
}

TEST(openapi, answers_have_exactly_the_fields_that_are_described) {
  snapshot_info least;
  snapshot_info most;
  most.pause = pause_breakdown{};
  most.copy = copy_summary{};
  most.note = most.failure = "x";
  most.failure_code = errc::io;
  most.timeline = {step_time{"copy"}};
  EXPECT_EQ(fields(to_json(least)), required("snapshot"));
  EXPECT_EQ(fields(to_json(most)), described("snapshot"));
  EXPECT_EQ(fields(details_to_json(most)), both(described("snapshot"), described("snapshot_details")));
  EXPECT_EQ(fields(to_json(most)["pause"]), described("pause"));
  EXPECT_EQ(fields(to_json(most)["copy"]), described("copy"));
  EXPECT_EQ(fields(to_json(most)["timeline"][0]), described("step"));
  EXPECT_EQ(fields(to_json(most)["progress"]), described("progress"));
  EXPECT_EQ(fields(to_json(sandbox_info{})), described("sandbox"));
  EXPECT_EQ(fields(to_json(verify_report{})), described("verify_report"));
  EXPECT_EQ(fields(to_json(journal_status{})), described("journal"));
  EXPECT_EQ(fields(to_json(vmm_capabilities{})), described("vmm"));
  EXPECT_EQ(fields(to_json(error{})), described("failure"));
  for (const char* schema :
       {"snapshot_details", "pause", "step", "copy", "progress", "sandbox", "verify_report", "journal"}) {
    EXPECT_EQ(required(schema), described(schema)) << schema << ": none of its fields is ever absent";
  }
}

TEST(openapi, bodies_may_have_exactly_the_fields_that_are_described) {
  const char* const unknown = R"({"?": 1})";
  EXPECT_EQ(known(parse_create_snapshot(unknown)), described("create_snapshot"));
  EXPECT_EQ(known(parse_create_sandboxes(unknown)), described("create_sandboxes"));
  EXPECT_EQ(known(parse_branch(unknown)), described("branch"));
  EXPECT_EQ(known(parse_exec(unknown)), described("exec"));
  EXPECT_EQ(known(parse_eval(unknown)), described("eval"));
}

// What is sent as the data of an event.
json sent(const plane_event& event) {
  event_log log(10, 1);
  log.add(event);
  const auto text = log.following(0).text;
  const auto data = text.find("data: ") + 6;
  return json::parse(text.substr(data, text.find('\n', data) - data));
}

TEST(openapi, each_event_has_exactly_the_fields_that_are_described) {
  const auto stream = api_schemas()["event_stream"]["contentSchema"]["oneOf"].dump();
  names told;
  for (int kind = 0; kind <= static_cast<int>(event_kind::snapshot_deleted); ++kind) {
    const auto which = static_cast<event_kind>(kind);
    const std::string type(to_string(which));
    const std::string schema = type.substr(0, type.find('.')) + "_event";
    told.insert(type);
    EXPECT_THAT(api_schemas()[schema]["properties"]["type"]["enum"], Contains(type));
    EXPECT_EQ(fields(sent({which, {}, {}, {}, {}})), required(schema)) << type;
    EXPECT_EQ(fields(sent({which, "sb-1", "a", "why", "id"})), described(schema)) << type;
    EXPECT_THAT(stream, ::testing::HasSubstr("/" + schema + "\""));
  }
  names known_types;
  for (const char* schema : {"sandbox_event", "branch_event", "snapshot_event"}) {
    for (const auto& type : api_schemas()[schema]["properties"]["type"]["enum"]) known_types.insert(type);
  }
  EXPECT_EQ(known_types, told);
  const auto reset = event_log(10, 1).following(7).text;
  EXPECT_THAT(reset, ::testing::HasSubstr("event: reset\n"));
  EXPECT_THAT(reset, ::testing::HasSubstr("data: {\"reason\":"));
  EXPECT_EQ(described("reset_event"), names{"reason"});
}

TEST(openapi, knows_each_code_of_a_failure_and_each_state) {
  for (const errc code : {errc::invalid_argument, errc::not_found, errc::already_exists, errc::conflict,
                          errc::unsupported, errc::unavailable, errc::no_space, errc::deadline_exceeded,
                          errc::cancelled, errc::io, errc::corrupt, errc::internal}) {
    EXPECT_THAT(api_schemas()["failure_kind"]["enum"], Contains(std::string(to_string(code))));
  }
  for (const auto status : {snapshot_status::writing, snapshot_status::ready, snapshot_status::failed}) {
    snapshot_info info;
    info.status = status;
    EXPECT_THAT(api_schemas()["snapshot"]["properties"]["status"]["enum"], Contains(to_json(info)["status"]));
  }
  for (const auto state :
       {sandbox_state::starting, sandbox_state::running, sandbox_state::branching, sandbox_state::stuck}) {
    sandbox_info info;
    info.state = state;
    EXPECT_THAT(api_schemas()["sandbox"]["properties"]["state"]["enum"], Contains(to_json(info)["state"]));
  }
}

TEST(openapi, describes_each_route_of_the_table_once_and_no_other) {
  names ids;
  std::size_t operations = 0;
  for (const auto& path : openapi_document()["paths"]) {
    for (const auto& operation : path) {
      ++operations;
      ids.insert(operation["operationId"].get<std::string>());
    }
  }
  EXPECT_EQ(operations, route_table().size());
  EXPECT_EQ(ids.size(), operations) << "an id is given twice";
  for (const route& each : route_table()) EXPECT_THAT(ids, Contains(std::string(each.id)));
}

TEST(openapi, tells_which_role_a_route_needs) {
  const auto& paths = openapi_document()["paths"];
  EXPECT_EQ(paths["/v1/sandboxes"]["get"]["security"][0]["token"], json({"read"}));
  EXPECT_EQ(paths["/v1/sandboxes"]["post"]["security"][0]["token"], json({"write"}));
  EXPECT_TRUE(paths["/v1/sandboxes"]["get"]["responses"].contains("401"));
  EXPECT_FALSE(paths["/healthz"]["get"].contains("security"));
  EXPECT_FALSE(paths["/healthz"]["get"]["responses"].contains("401"));
}

TEST(openapi, tells_the_limits_that_a_server_has_by_default) {
  const auto& responses = openapi_document()["components"]["responses"];
  EXPECT_EQ(client_limits{}.body_bytes, mib);
  EXPECT_THAT(responses["failure_413"]["description"], ::testing::HasSubstr("1 MiB by default"));
  EXPECT_EQ(client_limits{}.header_bytes, 16 * kib);
  EXPECT_THAT(responses["failure_431"]["description"], ::testing::HasSubstr("16 KiB by default"));
}

TEST(openapi, tells_what_is_kept_of_requests_with_a_key_and_for_how_long) {
  const std::string about = openapi_document()["info"]["description"];
  EXPECT_THAT(about, ::testing::HasSubstr("restart of coppiced forgets it"));
  EXPECT_EQ(idempotency_limits{}.entries, 1000U);
  EXPECT_EQ(idempotency_limits{}.bytes, 64 * mib);
  EXPECT_EQ(idempotency_limits{}.age, std::chrono::hours(24));
  EXPECT_THAT(about, ::testing::HasSubstr("24 hours, or later requests with keys beyond the latest 1,000 or 64 MiB"));
}

TEST(openapi, each_reference_leads_somewhere) {
  expect_references_lead_somewhere(openapi_document());
}

}  // namespace
}  // namespace coppice
