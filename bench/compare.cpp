#include "bench/compare.hpp"

#include <algorithm>
#include <cmath>

#include "bench/report.hpp"
#include "bench/statistics.hpp"
#include "options/table.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;

result<void> check_report(const json& report) {
  const error broken{errc::corrupt, 0, "this is no JSON of coppice-bench: it has no list of figures"};
  if (!report.is_object() || !report.contains("benchmark") || !report.contains("figures")) return broken;
  if (!report["benchmark"].is_string() || !report["figures"].is_array()) return broken;
  for (const json& one : report["figures"]) {
    if (!one.is_object()) return broken;
    for (const char* name : {"cell", "name", "better"}) {
      if (!one.contains(name) || !one[name].is_string()) return broken;
    }
    for (const char* name : {"count", "median", "p25", "p75"}) {
      if (!one.contains(name) || !one[name].is_number()) return broken;
    }
  }
  return {};
}

const json* find(const json& report, const json& like) {
  for (const json& one : report["figures"]) {
    if (one["cell"] == like["cell"] && one["name"] == like["name"]) return &one;
  }
  return nullptr;
}

double noise_of(const json& one) {
  statistics known;
  known.count = one["count"].get<std::size_t>();
  known.median = one["median"].get<double>();
  known.p25 = one["p25"].get<double>();
  known.p75 = one["p75"].get<double>();
  return median_noise(known);
}

verdict judge(const comparison& of, const std::string& direction) {
  if (direction.ends_with("_baseline") || of.before == of.after) return verdict::same;
  const double change = of.after - of.before;  // a ratio has no direction below zero
  if (std::abs(change) <= of.noise * std::abs(of.before)) return verdict::same;
  return (change < 0) == (direction == "lower") ? verdict::better : verdict::worse;
}

comparison compare_figure(const json& before, const json& after) {
  comparison made;
  made.cell = before["cell"];
  made.name = before["name"];
  made.before = before["median"];
  made.after = after["median"];
  made.ratio = made.before == 0 ? 0 : made.after / made.before;
  const double a = noise_of(before), b = noise_of(after);
  const double least = a < 0 || b < 0 ? least_noise_of_one : least_noise;
  const double both = 3 * std::hypot(std::max(a, 0.0), std::max(b, 0.0));
  made.noise = std::isfinite(both) ? std::max(least, both) : 1;
  made.what = judge(made, before["better"]);
  return made;
}

comparison only_in_one(const json& one) {
  comparison made;
  made.cell = one["cell"];
  made.name = one["name"];
  made.what = verdict::only_in_one;
  return made;
}

const char* name_of(verdict what) {
  switch (what) {
    case verdict::better:
      return "better";
    case verdict::worse:
      return "worse";
    case verdict::same:
      return "same";
    case verdict::only_in_one:
      break;
  }
  return "only in one";
}

}  // namespace

result<std::vector<comparison>> compare(const json& before, const json& after) {
  COPPICE_TRY(check_report(before));
  COPPICE_TRY(check_report(after));
  if (before["benchmark"] != after["benchmark"]) {
    return error{errc::invalid_argument, 0,
                 "a run of `" + before["benchmark"].get<std::string>() + "` can't be compared with one of `" +
                     after["benchmark"].get<std::string>() + "`"};
  }
  std::vector<comparison> all;
  for (const json& one : before["figures"]) {
    const json* const other = find(after, one);
    all.push_back(other == nullptr ? only_in_one(one) : compare_figure(one, *other));
  }
  for (const json& one : after["figures"]) {
    if (find(before, one) == nullptr) all.push_back(only_in_one(one));
  }
  return all;
}

std::vector<std::string> differences(const json& before, const json& after) {
  std::vector<std::string> found;
  for (const char* part : {"environment", "settings"}) {
    const json a = before.value(part, json::object()), b = after.value(part, json::object());
    if (!a.is_object() || !b.is_object()) continue;
    for (const auto& [key, value] : a.items()) {
      if (key == "commit" || key == "time" || key == "root" || key == "seconds")
        continue;  // what a comparison is about, or nothing
      const json other = b.value(key, json());
      if (other != value) found.push_back(key + ": " + value.dump() + " and " + other.dump());
    }
  }
  return found;
}

void print_comparison(std::ostream& out, const std::vector<comparison>& all) {
  std::vector<std::vector<std::string>> rows = {{"CELL", "FIGURE", "BEFORE", "AFTER", "RATIO", "NOISE", "VERDICT"}};
  for (const comparison& one : all) {
    if (one.what == verdict::only_in_one) {
      rows.push_back({one.cell, one.name, "", "", "", "", name_of(one.what)});
      continue;
    }
    rows.push_back({one.cell, one.name, short_number(one.before), short_number(one.after), short_number(one.ratio),
                    "+-" + short_number(one.noise * 100) + "%", name_of(one.what)});
  }
  print_table(out, rows);
}

json to_json(const std::vector<comparison>& all) {
  json list = json::array();
  for (const comparison& one : all) {
    list.push_back({{"cell", one.cell},
                    {"name", one.name},
                    {"before", one.before},
                    {"after", one.after},
                    {"ratio", one.ratio},
                    {"noise", one.noise},
                    {"verdict", name_of(one.what)}});
  }
  return list;
}

}  // namespace coppice::bench
