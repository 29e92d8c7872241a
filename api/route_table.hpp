// The routes of the API: one table, from which requests are dispatched, access is checked and api/openapi.cpp describes
// the API.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/routes.hpp"

namespace coppice {

// One request on its way: what a handler gets.
struct call {
  control_plane& plane;
  const allowed_paths& paths;
  const guest_exchange& ask_guest;
  std::string name;  // the {tag} or {id} of the path, decoded; empty if the route has none
  std::vector<std::pair<std::string, std::string>> query;  // each one that the route knows, "true" or "false"
  std::string body;
  std::string last_event_id;  // empty: none
  std::function<void(route_answer)> answer;
  std::string request_id = {};
  std::shared_ptr<request_details> details = {};  // never null: the handler notes in it what is named and made
};

enum class path_name { none, snapshot, sandbox };

// Query parameters are all "true" or "false".
struct query_parameter {
  std::string_view name;
  std::string_view meaning;
  bool changes = false;  // true needs the role write, also where GET is served to readers
};

struct route {
  std::string_view method;
  std::string_view pattern;
  std::string_view id;  // of the operation, for generators of clients
  path_name named = path_name::none;
  std::span<const query_parameter> query = {};
  std::string_view summary = {};
  std::string_view takes = {};                  // schema of the body (api/schemas.cpp); empty: no body
  std::string_view gives = {};                  // schema of the answer; "[x]" for a list of x; empty: no body
  std::string_view media = "application/json";  // type of the answer; a failure's is always JSON
  bool open = false;     // to callers without a token; else GET needs the role read, the others write
  bool creates = false;  // an Idempotency-Key is honoured
  std::span<const unsigned> successes = {};
  std::span<const unsigned> failures = {};  // besides those that any route may answer
  void (*run)(call) = nullptr;              // calls `answer` exactly once
};

// All routes. Static.
std::span<const route> route_table() noexcept;

}  // namespace coppice
