// The latest events of the control plane, as server-sent events:
// https://html.spec.whatwg.org/multipage/server-sent-events.html
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "control_plane/control_plane.hpp"

namespace coppice {

// Thread-safe. Ids rise by one with each event, also over restarts of the daemon (they begin with its start time).
class event_log {
 public:
  // Keeps the latest `capacity` events.
  explicit event_log(std::size_t capacity = 1000);
  // For tests: the first event's id is `first`.
  event_log(std::size_t capacity, std::uint64_t first) : capacity_(capacity), next_(first) {}

  void add(const plane_event& event);
  // The id of the latest event, or of the one before the first.
  std::uint64_t latest() const;

  struct batch {
    std::string text;             // as it is sent; empty if there is nothing new
    std::uint64_t continue_at{};  // what to ask for next
  };
  // Up to `most` events that follow the one with id `after`. If some of those are no longer kept (or `after` was never
  // given out), the text is one event "reset" instead, that carries the latest id: the client has to list anew.
  batch following(std::uint64_t after, std::size_t most = 100) const;

 private:
  const std::size_t capacity_;
  mutable std::mutex mutex_;
  std::deque<std::string> kept_;  // the last one has the id next_ - 1
  std::uint64_t next_;
};

// The value of a Last-Event-ID header; nothing if it is no id of ours.
std::optional<std::uint64_t> parse_event_id(std::string_view text);

}  // namespace coppice
