// Requests to calls of the control plane, and their completions to answers. Knows nothing of sockets.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/access.hpp"
#include "api/allowed_paths.hpp"
#include "control_plane/control_plane.hpp"

namespace coppice {

class event_log;
class idempotency_cache;

struct route_request {
  std::string method;  // "GET"
  std::string target;  // "/v1/snapshots/base/info?x=y", as sent
  std::string body = {};
  std::optional<std::string> idempotency_key = {};
  std::string last_event_id = {};  // empty: none
  caller from = {};
  std::string id = {};  // its X-Request-Id
};

// What a request named, and what was made of it, for the audit log; what is empty was not named. Never a program's
// arguments, code, or a secret.
struct request_details {
  std::string tag;
  std::string kernel;
  std::string initrd;
  std::string rootfs;
  std::string snapshot_tag;
  unsigned count = 0;
  std::string mode;
  std::string program;            // that exec ran
  std::vector<std::string> made;  // ids of sandboxes, or the tag of a snapshot
};

struct route_answer {
  unsigned status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  std::string allow = {};           // the methods there are, with a 405
  std::string_view route = "none";  // the route's pattern, for metrics; static text
  bool replayed = false;            // the answer of an earlier request with the same Idempotency-Key
  bool streams_events = false;      // instead of a body: what follows the event with this id, or comes from now on
  std::optional<std::uint64_t> events_after = {};
  std::shared_ptr<const request_details> details = {};  // may be null; does not change any more
};

// Connects, sends a line, and gives what the other side sent until it closed the connection. `done` is called once, on
// any thread, unless the server ends first. Errors: unavailable (says what failed), deadline_exceeded.
using guest_exchange = std::function<void(guest_socket to, std::string line, std::chrono::seconds patience,
                                          std::function<void(result<std::string>)> done)>;

// What requests are handled with.
struct route_services {
  control_plane& plane;
  std::shared_ptr<idempotency_cache> keys;
  std::shared_ptr<event_log> events;
  allowed_paths paths = {};
  guest_exchange ask_guest = {};
};

// Calls `answer` exactly once, now or later, on any thread.
void handle_request(const route_services& with, route_request request, std::function<void(route_answer)> answer);

// What of a target may be written to a log: its path up to 200 bytes, and its query if that holds only what routes
// have,
// "?..." else. A caller may have put a token there.
std::string recordable_target(std::string_view target);

// The answer for a failure that never became a request (too large, malformed).
route_answer failure_answer(unsigned status, const std::string& message);

}  // namespace coppice
