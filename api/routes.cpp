#include "api/routes.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "api/http_status.hpp"
#include "api/json.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using answer_function = std::function<void(route_answer)>;
using text_pairs = std::vector<std::pair<std::string, std::string>>;

// One request on its way: what the handlers need.
struct call {
  control_plane& plane;
  std::string name;  // the {tag} or {id} of the path, decoded; empty if the route has none
  text_pairs query;
  std::string body;
  answer_function answer;
};

enum class names { none, snapshot, sandbox };

struct route {
  std::string_view method;
  std::string_view pattern;
  names named;
  std::string_view query;  // the one query parameter there is, or empty
  void (*run)(call);
};

void answer_json(const answer_function& answer, unsigned status, const json& value) {
  answer({.status = status, .body = dump(value) + "\n"});
}

void answer_error(const answer_function& answer, const error& failure) {
  answer_json(answer, http_status(failure.code), to_json(failure));
}

// A completion that answers with the value as JSON.
template <class T>
control_plane::completion<T> answering(answer_function answer, unsigned status) {
  return [answer = std::move(answer), status](result<T> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer_json(answer, status, to_json(*outcome));
  };
}

template <class T>
control_plane::completion<std::vector<T>> answering_list(answer_function answer, unsigned status) {
  return [answer = std::move(answer), status](result<std::vector<T>> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    json list = json::array();
    for (const T& item : *outcome) list.push_back(to_json(item));
    answer_json(answer, status, list);
  };
}

control_plane::completion<void> answering_nothing(answer_function answer) {
  return [answer = std::move(answer)](result<void> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer({.status = 204});
  };
}

void list_snapshots(call c) {
  c.plane.list_snapshots(answering_list<snapshot_info>(c.answer, 200));
}
void snapshot_info_of(call c) {
  c.plane.snapshot(c.name, answering<snapshot_info>(c.answer, 200));
}
void delete_snapshot(call c) {
  c.plane.delete_snapshot(c.name, answering_nothing(c.answer));
}
void verify_snapshot(call c) {
  c.plane.verify_snapshot(c.name, answering<verify_report>(c.answer, 200));
}
void list_sandboxes(call c) {
  c.plane.list_sandboxes(answering_list<sandbox_info>(c.answer, 200));
}
void sandbox_info_of(call c) {
  c.plane.sandbox(c.name, answering<sandbox_info>(c.answer, 200));
}
void delete_sandbox(call c) {
  c.plane.delete_sandbox(c.name, answering_nothing(c.answer));
}

void create_snapshot(call c) {
  auto request = parse_create_snapshot(c.body);
  if (!request.ok()) return answer_error(c.answer, request.error());
  c.plane.create_snapshot(*std::move(request), answering<snapshot_info>(c.answer, 201));
}

void create_sandboxes(call c) {
  auto request = parse_create_sandboxes(c.body);
  if (!request.ok()) return answer_error(c.answer, request.error());
  c.plane.create_sandboxes(*std::move(request), answering_list<sandbox_info>(c.answer, 201));
}

void branch_sandbox(call c) {
  auto request = parse_branch(c.body);
  if (!request.ok()) return answer_error(c.answer, request.error());
  c.plane.branch(c.name, *std::move(request), [answer = c.answer](result<snapshot_info> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer_json(answer, outcome->status == snapshot_status::writing ? 202 : 201, to_json(*outcome));
  });
}

void journal(call c) {
  const std::string reset = c.query.empty() ? "false" : c.query.front().second;
  if (reset != "true" && reset != "false") {
    return answer_error(c.answer, {errc::invalid_argument, 0, "query parameter \"reset\" must be true or false"});
  }
  c.plane.journal(c.name, reset == "true", answering<journal_status>(c.answer, 200));
}

void healthz(call c) {
  answer_json(c.answer, 200, {{"status", "ok"}});
}

void version(call c) {
  answer_json(c.answer, 200, {{"name", "coppiced"}, {"version", COPPICE_VERSION}, {"vmm", to_json(c.plane.vmm())}});
}

void metrics_text(call c) {
  c.answer({.status = 200, .body = c.plane.metrics_text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

constexpr std::array routes = {
    route{"GET", "/healthz", names::none, "", healthz},
    route{"GET", "/version", names::none, "", version},
    route{"GET", "/metrics", names::none, "", metrics_text},
    route{"GET", "/v1/snapshots", names::none, "", list_snapshots},
    route{"POST", "/v1/snapshots", names::none, "", create_snapshot},
    route{"GET", "/v1/snapshots/{tag}/info", names::snapshot, "", snapshot_info_of},
    route{"DELETE", "/v1/snapshots/{tag}", names::snapshot, "", delete_snapshot},
    route{"POST", "/v1/snapshots/{tag}/verify", names::snapshot, "", verify_snapshot},
    route{"GET", "/v1/sandboxes", names::none, "", list_sandboxes},
    route{"POST", "/v1/sandboxes", names::none, "", create_sandboxes},
    route{"GET", "/v1/sandboxes/{id}", names::sandbox, "", sandbox_info_of},
    route{"DELETE", "/v1/sandboxes/{id}", names::sandbox, "", delete_sandbox},
    route{"GET", "/v1/sandboxes/{id}/journal", names::sandbox, "reset", journal},
    route{"POST", "/v1/sandboxes/{id}/branch", names::sandbox, "", branch_sandbox},
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t from = 0;;) {
    const auto to = text.find(separator, from);
    parts.push_back(text.substr(from, to - from));
    if (to == std::string_view::npos) return parts;
    from = to + 1;
  }
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "%41" → "A"; a stray percent sign stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0;
    if (escape) {
      decoded += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// The part of `path` at the pattern's "{...}" (empty if it has none); nothing if the path is another one.
std::optional<std::string_view> matched(std::string_view pattern, std::string_view path) {
  const auto wanted = split(pattern, '/');
  const auto given = split(path, '/');
  if (wanted.size() != given.size()) return std::nullopt;
  std::string_view name;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i].starts_with('{')) {
      name = given[i];
    } else if (wanted[i] != given[i]) {
      return std::nullopt;
    }
  }
  return name;
}

text_pairs parse_query(std::string_view text) {
  text_pairs pairs;
  if (text.empty()) return pairs;
  for (std::string_view part : split(text, '&')) {
    const auto equals = part.find('=');
    pairs.emplace_back(percent_decoded(part.substr(0, equals)),
                       equals == std::string_view::npos ? "" : percent_decoded(part.substr(equals + 1)));
  }
  return pairs;
}

std::optional<error> check(const route& chosen, const call& c) {
  if (chosen.named == names::snapshot) {
    if (auto legal = validate_tag(c.name); !legal.ok()) return std::move(legal).error();
  }
  if (chosen.named == names::sandbox && !validate_tag(c.name).ok()) {
    return error{errc::not_found, 0, "no sandbox '" + c.name.substr(0, 80) + "'"};
  }
  for (const auto& [key, value] : c.query) {
    if (!chosen.query.empty() && key == chosen.query) continue;
    return error{errc::invalid_argument, 0,
                 "unknown query parameter \"" + key.substr(0, 80) + "\"" +
                     (chosen.query.empty() ? ": this route has none" : ": known is " + std::string(chosen.query))};
  }
  return std::nullopt;
}

void run_route(const route& chosen, call c) {
  const auto answer = c.answer;
  if (const auto wrong = check(chosen, c)) return answer_error(answer, *wrong);
  chosen.run(std::move(c));
}

}  // namespace

route_answer failure_answer(unsigned status, const std::string& message) {
  return {.status = status, .body = dump({{"error", message}}) + "\n"};
}

void handle_request(control_plane& plane, route_request request, std::function<void(route_answer)> answer) {
  const std::string_view target = request.target;
  const auto question = target.find('?');
  const std::string_view path = target.substr(0, question);
  std::string allow;
  for (const route& candidate : routes) {
    const auto name = matched(candidate.pattern, path);
    if (!name) continue;
    if (candidate.method != request.method) {
      allow += (allow.empty() ? "" : ", ") + std::string(candidate.method);
      continue;
    }
    auto tagged = [answer, pattern = candidate.pattern](route_answer reply) {
      reply.route = pattern;
      answer(std::move(reply));
    };
    const std::string_view query = question == std::string_view::npos ? "" : target.substr(question + 1);
    return run_route(candidate, {plane, percent_decoded(*name), parse_query(query), std::move(request.body), tagged});
  }
  if (!allow.empty()) {
    auto reply = failure_answer(405, "method " + request.method + " is not allowed here: use " + allow);
    reply.allow = allow;
    return answer(std::move(reply));
  }
  answer(failure_answer(404, "no such route: " + std::string(path.substr(0, 200))));
}

}  // namespace coppice
