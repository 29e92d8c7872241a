#include "cli/branch_trace.hpp"

#include <algorithm>
#include <optional>

#include "base/file.hpp"

namespace coppice {
namespace {

using nlohmann::json;

constexpr int process = 1;
enum track : int { steps_track = 1, guest_track = 2 };

json named(const char* what, int thread, const std::string& name) {
  return {{"ph", "M"}, {"pid", process}, {"tid", thread}, {"name", what}, {"args", {{"name", name}}}};
}

json slice(track on, const std::string& name, std::int64_t from_us, std::int64_t to_us, json args = json::object()) {
  return {{"ph", "X"},     {"pid", process},         {"tid", static_cast<int>(on)}, {"name", name},
          {"ts", from_us}, {"dur", to_us - from_us}, {"args", std::move(args)}};
}

struct span_us {
  std::int64_t from = 0;
  std::int64_t to = 0;
};

// From the beginning of one step to the end of another; nothing if the branch had not both.
std::optional<span_us> between(const json& timeline, std::string_view first, std::string_view last) {
  const auto find = [&](std::string_view name) {
    return std::find_if(timeline.begin(), timeline.end(),
                        [&](const json& each) { return each.value("step", "") == name; });
  };
  const auto from = find(first);
  const auto to = find(last);
  if (from == timeline.end() || to == timeline.end()) return std::nullopt;
  return span_us{from->value("began_us", std::int64_t{0}),
                 to->value("began_us", std::int64_t{0}) + to->value("took_us", std::int64_t{0})};
}

void add_guest(json& events, const json& timeline) {
  if (const auto span = between(timeline, "prearm", "copy")) {
    events.push_back(slice(guest_track, "write-protected", span->from, span->to));
  }
  if (const auto span = between(timeline, "pause", "resume")) {
    events.push_back(slice(guest_track, "stands still", span->from, span->to));
  }
}

}  // namespace

json branch_trace(const json& branch, const std::vector<copy_sample>& samples) {
  const json timeline = branch.value("timeline", json::array());
  json events = json::array();
  events.push_back(
      named("process_name", 0, "branch " + branch.value("tag", "") + " of " + branch.value("branched_from", "")));
  events.push_back(named("thread_name", steps_track, "steps"));
  events.push_back(named("thread_name", guest_track, "guest"));
  for (const json& each : timeline) {
    const std::string name = each.value("step", "");
    const auto from = each.value("began_us", std::int64_t{0});
    events.push_back(slice(steps_track, name, from, from + each.value("took_us", std::int64_t{0}),
                           name == "copy" ? branch.value("copy", json::object()) : json::object()));
  }
  add_guest(events, timeline);
  for (const auto& sample : samples) {
    events.push_back({{"ph", "C"},
                      {"pid", process},
                      {"name", "copied bytes"},
                      {"ts", sample.at.count()},
                      {"args", {{"bytes", sample.copied_bytes}}}});
  }
  return {{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}};
}

result<void> write_branch_trace(const std::string& file, const json& branch, const std::vector<copy_sample>& samples) {
  if (!branch.contains("timeline")) {
    return error{errc::unsupported, 0, "no trace is written: the daemon tells no timeline of this branch"};
  }
  return write_text_file(file, branch_trace(branch, samples).dump(1) + "\n");
}

}  // namespace coppice
