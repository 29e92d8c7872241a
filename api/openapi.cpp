#include "api/openapi.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "api/route_table.hpp"
#include "api/schemas.hpp"

namespace coppice {
namespace {

using nlohmann::json;

constexpr const char* api_about = R"(Branching of running microVMs.

Bodies are JSON. In those of requests, a field that is null counts as absent, and one that is unknown is refused.
Every answer has an `X-Request-Id`: the request's own, if it sent one of up to 64 letters, digits and `._-`. A failure
has a body with `error`, a sentence, and mostly `code`. What has no route is answered by 404, and a method that a path
does not have by 405 with `Allow`.

With an `Idempotency-Key`, a creation may be sent again when its answer was lost. What was answered is kept in memory only: a
restart of coppiced forgets it, and so do 24 hours, or later requests with keys beyond the latest 1,000 or 64 MiB of answers (the
oldest go first). A failure is not kept, as nothing was made: the same request may succeed later. Whoever comes back after the
answer was forgotten looks first at what there is: a tag that exists is answered by 409, but sandboxes would be created anew.

Tokens are needed if coppiced was started with `--token-file`. One with the role `read` may GET; `write` may do all.)";

struct failure {
  unsigned status;
  std::string_view meaning;
};

// What each status of a failure means, wherever it is answered.
constexpr std::array failures = {
    failure{400,
            "The request is wrong: not HTTP or JSON, or a field, parameter or header is unknown, missing or illegal"},
    failure{401, "A token that coppiced knows is needed"},
    failure{403, "The token may only read; or, where no tokens are needed, the request may be of a web page"},
    failure{404, "There is no such snapshot or sandbox"},
    failure{
        409,
        "It conflicts with what is there or in the making, or was cancelled, or this VMM or guest can't do it; or the "
        "Idempotency-Key belongs to another request, or to one in flight"},
    failure{413, "The body is larger than coppiced takes: 1 MiB by default"},
    failure{431, "The header is larger than coppiced takes: 16 KiB by default"},
    failure{500, "coppiced or its VMM failed"},
    failure{503,
            "Not now: a deadline was missed, space is missing, there are too many connections, the audit log can't be "
            "written, or coppiced is stopping"},
};

// What any route may answer; those that want a token 401, too.
constexpr std::array<unsigned, 6> of_any_route{400, 403, 413, 431, 500, 503};

std::string name_of(unsigned failure_status) {
  return "failure_" + std::to_string(failure_status);
}

json reference(std::string_view kind, std::string_view name) {
  return {{"$ref", "#/components/" + std::string(kind) + "/" + std::string(name)}};
}

json content(std::string_view media, json schema) {
  return {{std::string(media), {{"schema", std::move(schema)}}}};
}

json header(std::string_view meaning, json schema) {
  return {{"description", meaning}, {"schema", std::move(schema)}};
}

json failure_response(const failure& which) {
  json headers = {{"X-Request-Id", reference("headers", "request_id")}};
  if (which.status == 401) headers["WWW-Authenticate"] = header("Bearer", {{"type", "string"}});
  return {{"description", which.meaning},
          {"headers", std::move(headers)},
          {"content", content("application/json", reference("schemas", "failure"))}};
}

json success_response(const route& of, unsigned status) {
  json response = {{"description", status == 202 ? "Accepted: it goes on" : "Done"},
                   {"headers", {{"X-Request-Id", reference("headers", "request_id")}}}};
  if (of.creates) {
    response["headers"]["Idempotency-Replayed"] =
        header("true: this is the answer of an earlier request with the same Idempotency-Key", {{"const", "true"}});
  }
  if (of.gives.starts_with('[')) {
    const json item = reference("schemas", of.gives.substr(1, of.gives.size() - 2));
    response["content"] = content(of.media, {{"type", "array"}, {"items", item}});
  } else if (!of.gives.empty()) {
    response["content"] = content(of.media, reference("schemas", of.gives));
  }
  return response;
}

json responses(const route& of) {
  json all = json::object();
  for (const unsigned status : of.successes) all[std::to_string(status)] = success_response(of, status);
  const auto fails = [&](unsigned status) { all[std::to_string(status)] = reference("responses", name_of(status)); };
  std::ranges::for_each(of_any_route, fails);
  std::ranges::for_each(of.failures, fails);
  if (!of.open) fails(401);
  return all;
}

json parameter(std::string_view where, std::string_view name, std::string_view meaning, json schema) {
  return {{"in", where},
          {"name", name},
          {"description", meaning},
          {"required", where == "path"},
          {"schema", std::move(schema)}};
}

json parameters(const route& of) {
  json all = json::array();
  if (of.named == path_name::snapshot) {
    all.push_back(parameter("path", "tag", "name of the snapshot", reference("schemas", "tag")));
  }
  if (of.named == path_name::sandbox) {
    all.push_back(parameter("path", "id", "id of the sandbox", {{"type", "string"}, {"minLength", 1}}));
  }
  for (const auto& each : of.query) {
    all.push_back(parameter("query", each.name, each.meaning, {{"type", "boolean"}, {"default", false}}));
  }
  if (of.creates) all.push_back(reference("parameters", "idempotency_key"));
  if (of.media == "text/event-stream") all.push_back(reference("parameters", "last_event_id"));
  return all;
}

json operation(const route& of) {
  json described = {{"operationId", of.id}, {"summary", of.summary}, {"responses", responses(of)}};
  if (auto all = parameters(of); !all.empty()) described["parameters"] = std::move(all);
  if (!of.takes.empty()) {
    const json& schema = api_schemas().at(std::string(of.takes));
    described["requestBody"] = {{"required", schema.contains("required")},
                                {"content", content("application/json", reference("schemas", of.takes))}};
  }
  // Either the token, or none: whether one is needed is the daemon's matter.
  if (!of.open) {
    const json role = of.method == "GET" ? "read" : "write";
    described["security"] = json::array({{{"token", json::array({role})}}, json::object()});
  }
  return described;
}

json components() {
  json all;
  all["schemas"] = api_schemas();
  all["headers"]["request_id"] = header("names the request in coppiced's logs", {{"type", "string"}});
  all["parameters"]["idempotency_key"] = parameter(
      "header", "Idempotency-Key",
      "a repetition with the same key within 24 hours gets the first answer, and has no second effect, as long "
      "as coppiced keeps that",
      {{"type", "string"}, {"pattern", "^[!-~]{1,255}$"}});
  all["parameters"]["last_event_id"] =
      parameter("header", "Last-Event-ID", "id of the last event that was seen: the stream goes on after it",
                {{"type", "string"}, {"pattern", "^[0-9]{1,19}$"}});
  for (const failure& each : failures) all["responses"][name_of(each.status)] = failure_response(each);
  all["securitySchemes"]["token"] = {
      {"type", "http"}, {"scheme", "bearer"}, {"description", "a token of coppiced's --token-file"}};
  all["securitySchemes"]["certificate"] = {
      {"type", "mutualTLS"}, {"description", "besides a token, where coppiced was started with --tls-client-ca"}};
  return all;
}

json described_api() {
  json document = {{"openapi", "3.1.0"},
                   {"info",
                    {{"title", "Coppice"},
                     {"version", COPPICE_VERSION},
                     {"description", api_about},
                     {"license", {{"name", "Apache 2.0"}, {"identifier", "Apache-2.0"}}}}},
                   {"components", components()}};
  for (const route& each : route_table()) {
    std::string method(each.method);
    std::ranges::transform(method, method.begin(), [](char c) { return static_cast<char>(c | 0x20); });  // lower case
    document["paths"][std::string(each.pattern)][method] = operation(each);
  }
  return document;
}

}  // namespace

const json& openapi_document() {
  static const json document = described_api();
  return document;
}

}  // namespace coppice
