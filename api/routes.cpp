#include "api/routes.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "api/digest.hpp"
#include "api/idempotency_cache.hpp"
#include "api/json.hpp"
#include "api/route_table.hpp"
#include "base/http_status.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {

using text_pair = std::pair<std::string, std::string>;
using text_pairs = std::vector<text_pair>;

constexpr std::size_t longest_key = 255;       // of an Idempotency-Key
constexpr std::size_t longest_recorded = 200;  // of a target's path; those of routes are shorter
constexpr std::size_t longest_parameter = 15;  // of its name; a token is longer

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

std::optional<error> check_query(const route& chosen, const text_pairs& query) {
  const auto wrong = [](std::string message) { return error{errc::invalid_argument, 0, std::move(message)}; };
  for (auto pair = query.begin(); pair != query.end(); ++pair) {
    const std::string shown = '"' + pair->first.substr(0, 80) + '"';
    const auto named = [&](const auto& other) { return other.first == pair->first; };
    if (std::ranges::none_of(chosen.query, [&](const auto& known) { return known.name == pair->first; })) {
      std::string known;
      for (const auto& each : chosen.query) known += (known.empty() ? "" : ", ") + std::string(each.name);
      return wrong("unknown query parameter " + shown +
                   (known.empty() ? ": this route has none" : ": known is " + known));
    }
    if (pair->second != "true" && pair->second != "false") {
      return wrong("query parameter " + shown + " must be true or false");
    }
    if (std::any_of(query.begin(), pair, named)) return wrong("query parameter " + shown + " is given twice");
  }
  return std::nullopt;
}

std::optional<error> check(const route& chosen, const call& c) {
  if (chosen.named == path_name::snapshot) {
    if (auto legal = validate_tag(c.name); !legal.ok()) return std::move(legal).error();
  }
  if (chosen.named == path_name::sandbox && !validate_tag(c.name).ok()) {
    return error{errc::not_found, 0, "no sandbox '" + c.name.substr(0, 80) + "'"};
  }
  return check_query(chosen, c.query);
}

void run_route(const route& chosen, call c) {
  const auto answer = c.answer;
  if (const auto wrong = check(chosen, c)) {
    return answer({.status = http_status(wrong->code), .body = dump(to_json(*wrong)) + "\n"});
  }
  chosen.run(std::move(c));
}

route_answer token_needed() {
  return failure_answer(401, "a token that coppiced knows is needed: send \"Authorization: Bearer TOKEN\"");
}

// A repetition gets the first answer, unless that is still to come.
void run_once(const route& chosen, call c, idempotency_cache& keys, const route_request& request) {
  const std::string& key = *request.idempotency_key;
  const bool legal =
      !key.empty() && key.size() <= longest_key && std::ranges::all_of(key, [](char x) { return x > ' ' && x <= '~'; });
  if (!legal) return c.answer(failure_answer(400, "bad Idempotency-Key: 1 to 255 visible ASCII characters are needed"));
  // One caller's keys are none of another's.
  const std::string whose = request.from.name + '\n' + key;
  const std::string what = request.method + ' ' + request.target + '\n' + c.body;
  const auto decided = keys.begin(whose, sha256(what));
  if (!decided.run) return c.answer(decided.answer);
  c.answer = [answer = c.answer, run = decided.run, details = c.details](route_answer reply) {
    reply.details = details;  // a repetition's line in the audit log names what the first one made
    run->finish(reply);
    answer(std::move(reply));
  };
  run_route(chosen, std::move(c));
}

// What the caller's role forbids.
std::optional<route_answer> forbidden(const route& chosen, const text_pairs& query, const caller& from) {
  if (chosen.open || from.role == access_role::write) return std::nullopt;
  if (from.role == access_role::none) return token_needed();
  const bool changes = std::ranges::any_of(chosen.query, [&](const query_parameter& each) {
    return each.changes && std::ranges::find(query, text_pair(each.name, "true")) != query.end();
  });
  if (chosen.method == "GET" && !changes) return std::nullopt;
  return failure_answer(403, "the token '" + from.name + "' may only read");
}

}  // namespace

route_answer failure_answer(unsigned status, const std::string& message) {
  return {.status = status, .body = dump({{"error", message}}) + "\n"};
}

std::string recordable_target(std::string_view target) {
  const auto question = target.find('?');
  std::string recorded(target.substr(0, std::min(question, longest_recorded)));
  if (question == std::string_view::npos) return recorded;
  const auto query = target.substr(question);
  const auto pairs = parse_query(query.substr(1));
  const bool harmless =
      query.size() <= longest_recorded && std::ranges::all_of(pairs, [](const text_pair& each) {
        return each.first.size() <= longest_parameter && (each.second == "true" || each.second == "false");
      });
  return recorded + (harmless ? std::string(query) : "?...");
}

void handle_request(const route_services& with, route_request request, std::function<void(route_answer)> answer) {
  const std::string_view target = request.target;
  const auto question = target.find('?');
  const std::string_view path = target.substr(0, question);
  std::string allow;
  for (const route& candidate : route_table()) {
    const auto name = matched(candidate.pattern, path);
    if (!name) continue;
    if (candidate.method != request.method) {
      allow += (allow.empty() ? "" : ", ") + std::string(candidate.method);
      continue;
    }
    const auto details = std::make_shared<request_details>();
    auto tagged = [answer, pattern = candidate.pattern, details](route_answer reply) {
      reply.route = pattern;
      if (!reply.details) reply.details = details;
      answer(std::move(reply));
    };
    auto query = parse_query(question == std::string_view::npos ? "" : target.substr(question + 1));
    if (const auto refusal = forbidden(candidate, query, request.from)) return tagged(*refusal);
    call c{with.plane,
           with.paths,
           with.ask_guest,
           percent_decoded(*name),
           std::move(query),
           std::move(request.body),
           std::move(request.last_event_id),
           tagged,
           std::move(request.id),
           details};
    if (!candidate.creates || !request.idempotency_key) return run_route(candidate, std::move(c));
    return run_once(candidate, std::move(c), *with.keys, request);
  }
  if (request.from.role == access_role::none) return answer(token_needed());
  if (!allow.empty()) {
    auto reply = failure_answer(405, "method " + request.method + " is not allowed here: use " + allow);
    reply.allow = allow;
    return answer(std::move(reply));
  }
  answer(failure_answer(404, "no such route: " + std::string(path.substr(0, 200))));
}

}  // namespace coppice
