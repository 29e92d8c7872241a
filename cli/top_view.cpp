#include "cli/top_view.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <sstream>
#include <tuple>

#include "base/units.hpp"
#include "options/table.hpp"

namespace coppice {
namespace {

using nlohmann::json;

std::string whole(double value) {
  return formatted("%.0f", value);
}
std::string bytes(double value) {
  return format_bytes(static_cast<std::uint64_t>(std::max(value, 0.0)));
}

std::string text_of(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "-";
}
double number_of(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

// Two readings of one daemon, or the first alone.
class comparison {
 public:
  comparison(const top_reading& now, const top_reading* before) : now_(now), before_(before) {}

  // How much a counter grew per second; "-" if that can't be told yet.
  std::string per_second(const char* counter, const metric_samples::labels& labels,
                         std::string (*shown)(double)) const {
    return before_ == nullptr ? "-" : shown(growth(counter, labels) / seconds()) + "/s";
  }
  double growth(const char* counter, const metric_samples::labels& labels) const {
    if (before_ == nullptr) return 0;
    return std::max(0.0, now_.metrics.sum(counter, labels) - before_->metrics.sum(counter, labels));
  }

 private:
  double seconds() const { return std::max(0.001, std::chrono::duration<double>(now_.when - before_->when).count()); }

  const top_reading& now_;
  const top_reading* const before_;
};

std::string first_line(const top_reading& now) {
  const auto vmm = now.version.value("vmm", json::object());
  const double started = now.metrics.sum("process_start_time_seconds");
  return "coppiced " + text_of(now.version, "version") + "  up " +
         (started > 0 ? age_since(static_cast<std::uint64_t>(started)) : "-") + "  " + now.url + "  " +
         text_of(vmm, "name") + " " + text_of(vmm, "version") + (vmm.value("live", false) ? "" : ", no live branches");
}

std::string sandbox_line(const top_reading& now) {
  std::map<std::string, unsigned> states;
  for (const json& sandbox : now.sandboxes) ++states[text_of(sandbox, "state")];
  std::string line = "sandboxes  " + std::to_string(now.sandboxes.size());
  for (const auto& [state, count] : states) line += ", " + std::to_string(count) + " " + state;
  return line;
}

std::string branch_line(const top_reading& now, const comparison& change) {
  const auto ended = [&](const char* outcome) {
    return whole(now.metrics.sum("coppice_branches_total", {{"outcome", outcome}}));
  };
  return "branches   " + whole(now.metrics.sum("coppice_branches_in_flight")) + " in flight, " +
         change.per_second("coppice_branches_total", {}, [](double rate) { return formatted("%.1f", rate); }) + ", " +
         ended("ready") + " ready, " + ended("failed") + " failed";
}

std::string copy_line(const top_reading& now, const comparison& change) {
  return "copies     " + change.per_second("coppice_written_bytes_total", {}, bytes) + ", " +
         bytes(now.metrics.sum("coppice_written_bytes_total")) + " written, " +
         bytes(now.metrics.sum("coppice_copied_bytes_total", {{"source", "captured"}})) + " captured at faults";
}

std::string pause_line(const top_reading& now) {
  std::string line = "pauses     ";
  std::string separator;
  for (const char* mode : {"live", "full", "diff"}) {
    const metric_samples::labels labels{{"mode", mode}};
    const auto median = now.metrics.quantile("coppice_branch_pause_seconds", 0.5, labels);
    const auto high = now.metrics.quantile("coppice_branch_pause_seconds", 0.99, labels);
    if (!median || !high) continue;
    line +=
        separator + mode + " p50 " + format_milliseconds(*median * 1e6) + ", p99 " + format_milliseconds(*high * 1e6);
    separator = "; ";
  }
  return separator.empty() ? line + "none yet" : line;
}

// What is being copied of a sandbox: "b1 34%".
std::string copies_of(const std::string& sandbox, const json& snapshots) {
  std::string list;
  for (const json& snapshot : snapshots) {
    if (text_of(snapshot, "status") != "writing" || text_of(snapshot, "branched_from") != sandbox) continue;
    const auto progress = snapshot.value("progress", json::object());
    const double total = number_of(progress, "total_pages");
    list += (list.empty() ? "" : ", ") + text_of(snapshot, "tag");
    if (total > 0) list += " " + whole(100 * number_of(progress, "copied_pages") / total) + "%";
  }
  return list.empty() ? "-" : list;
}

std::string last_pause(const json& sandbox) {
  const double microseconds = number_of(sandbox, "last_pause_us");
  return microseconds > 0 ? format_milliseconds(microseconds) : "-";
}

// Branches of a sandbox since the reading before, all of one that is new.
double recent_branches(const json& sandbox, const top_reading* before) {
  if (before == nullptr) return 0;
  for (const json& each : before->sandboxes) {
    if (text_of(each, "id") != text_of(sandbox, "id")) continue;
    return number_of(sandbox, "branch_count") - number_of(each, "branch_count");
  }
  return number_of(sandbox, "branch_count");
}

struct busy_sandbox {
  const json* info = nullptr;
  bool is_branching = false;
  double recent = 0;  // branches since the reading before
  double branches = 0;
};

std::vector<busy_sandbox> busiest_first(const top_reading& now, const top_reading* before) {
  std::vector<busy_sandbox> all;
  for (const json& each : now.sandboxes) {
    const std::string id = text_of(each, "id");
    const bool is_branching = text_of(each, "state") == "branching" || copies_of(id, now.snapshots) != "-";
    all.push_back({&each, is_branching, recent_branches(each, before), number_of(each, "branch_count")});
  }
  std::ranges::stable_sort(all, [](const busy_sandbox& left, const busy_sandbox& right) {
    return std::tuple(left.is_branching, left.recent, left.branches) >
           std::tuple(right.is_branching, right.recent, right.branches);
  });
  return all;
}

}  // namespace

std::vector<std::string> top_lines(const top_reading& now, const top_reading* before) {
  const comparison change(now, before);
  std::vector<std::string> lines = {first_line(now),        sandbox_line(now), branch_line(now, change),
                                    copy_line(now, change), pause_line(now),   ""};
  std::vector<std::vector<std::string>> rows = {
      {"SANDBOX", "STATE", "BRANCHES", "NEW", "LAST PAUSE", "COPYING", "MEMORY", "SNAPSHOT", "AGE"}};
  for (const busy_sandbox& each : busiest_first(now, before)) {
    const std::string id = text_of(*each.info, "id");
    rows.push_back({id, text_of(*each.info, "state"), whole(each.branches),
                    before == nullptr ? "-" : whole(each.recent), last_pause(*each.info), copies_of(id, now.snapshots),
                    bytes(number_of(*each.info, "memory_bytes")), text_of(*each.info, "snapshot_tag"),
                    age_since(static_cast<std::uint64_t>(number_of(*each.info, "created_at_unix")))});
  }
  std::ostringstream table;
  print_table(table, rows);
  std::istringstream text(table.str());
  for (std::string line; std::getline(text, line);) lines.push_back(std::move(line));
  return lines;
}

nlohmann::json top_json(const top_reading& now) {
  json metrics = json::array();
  for (const auto& each : now.metrics.all()) {
    metrics.push_back({{"name", each.name}, {"labels", each.labels}, {"value", each.value}});
  }
  return {{"server", now.url},
          {"version", now.version},
          {"sandboxes", now.sandboxes},
          {"snapshots", now.snapshots},
          {"metrics", std::move(metrics)}};
}

}  // namespace coppice
