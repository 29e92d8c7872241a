// Reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), and writes them for
// people.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace coppice {

struct server_event {
  std::string id;  // the latest that was told, also by an earlier event
  std::string type;
  std::string data;  // its lines, with \n between them
};

// Puts events together out of a stream that comes in any pieces. One thread uses it.
class event_reader {
 public:
  explicit event_reader(std::function<void(const server_event&)> hear) : hear_(std::move(hear)) {}

  // Calls `hear` for each event that ends in these bytes.
  void take(std::string_view bytes);

 private:
  void take_line(std::string_view line);
  void end_event();

  const std::function<void(const server_event&)> hear_;
  std::string line_;  // what came of it so far
  server_event next_;
  bool has_data_ = false;
};

// The event's data, with "id" and "type" where the data doesn't tell them ("reset"); data that is no JSON object is
// under "data".
nlohmann::json event_json(const server_event& event);
// "2026-12-01T14:29:36.123Z branch.ready sandbox=sb-1 tag=b1 id=17": what is null or absent is left out.
std::string event_line(const nlohmann::json& event);

}  // namespace coppice
