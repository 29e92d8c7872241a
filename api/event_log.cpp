#include "api/event_log.hpp"

#include <charconv>
#include <chrono>

#include "api/json.hpp"

namespace coppice {
namespace {

using namespace std::chrono;

// A million ids a second of the daemon's life are more than it can use, and ids stay below 2^53 (JSON in browsers).
std::uint64_t first_id() {
  return static_cast<std::uint64_t>(duration_cast<seconds>(system_clock::now().time_since_epoch()).count()) << 20;
}

nlohmann::json or_null(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

std::string sent(std::uint64_t id, std::string_view type, const nlohmann::json& data) {
  return "id: " + std::to_string(id) + "\nevent: " + std::string(type) + "\ndata: " + dump(data) + "\n\n";
}

}  // namespace

event_log::event_log(std::size_t capacity) : event_log(capacity, first_id()) {}

void event_log::add(const plane_event& event) {
  const auto now = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  const auto type = to_string(event.kind);
  const std::lock_guard lock(mutex_);
  nlohmann::json data = {{"id", next_},
                         {"type", type},
                         {"time_unix_ms", now},
                         {"sandbox", or_null(event.sandbox)},
                         {"tag", or_null(event.tag)}};
  if (!event.reason.empty()) data["reason"] = event.reason;
  if (!event.request_id.empty()) data["request_id"] = event.request_id;
  kept_.push_back(sent(next_++, type, data));
  if (kept_.size() > capacity_) kept_.pop_front();
}

std::uint64_t event_log::latest() const {
  const std::lock_guard lock(mutex_);
  return next_ - 1;
}

event_log::batch event_log::following(std::uint64_t after, std::size_t most) const {
  const std::lock_guard lock(mutex_);
  const std::uint64_t oldest = next_ - kept_.size();
  if (after >= next_ || after + 1 < oldest) {
    return {sent(next_ - 1, "reset", {{"reason", "events after the last one that you saw are gone: list anew"}}),
            next_ - 1};
  }
  batch found{{}, after};
  for (; found.continue_at + 1 < next_ && most > 0; --most) found.text += kept_[++found.continue_at - oldest];
  return found;
}

std::optional<std::uint64_t> parse_event_id(std::string_view text) {
  std::uint64_t id = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (failure != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return id;
}

}  // namespace coppice
