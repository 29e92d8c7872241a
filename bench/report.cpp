#include "bench/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bench/report_head.hpp"
#include "options/table.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;

constexpr std::size_t most_values_kept = 2000;  // of a figure in the JSON; more tell nothing that its quantiles don't

const char* name_of(better direction) {
  switch (direction) {
    case better::lower:
      return "lower";
    case better::higher:
      return "higher";
    case better::lower_baseline:
      return "lower_baseline";
    case better::higher_baseline:
      break;
  }
  return "higher_baseline";
}

statistics statistics_of(const figure& one) {
  return summarize(one.values, one.direction == better::lower || one.direction == better::lower_baseline);
}

bool missed(const figure& one) {
  return one.wanted && one.wanted->not_judged.empty() && !one.wanted->met_by(statistics_of(one).median);
}

bool is_not_judged(const figure& one) {
  return one.wanted && !one.wanted->not_judged.empty();
}

json json_of(const target& wanted, double median) {
  json value = {{"limit", wanted.limit}, {"at_most", wanted.at_most}, {"met", wanted.met_by(median)}};
  if (wanted.not_judged.empty()) return value;
  value["met"] = nullptr;
  value["not_judged"] = wanted.not_judged;
  return value;
}

json json_of(const figure& one) {
  const statistics all = statistics_of(one);
  json value = {{"cell", one.cell},     {"name", one.name},  {"better", name_of(one.direction)},
                {"count", all.count},   {"best", all.best},  {"p25", all.p25},
                {"median", all.median}, {"p75", all.p75},    {"p90", all.p90},
                {"p99", all.p99},       {"worst", all.worst}};
  if (one.values.size() > 1 && one.values.size() <= most_values_kept) value["values"] = one.values;
  if (one.wanted) value["target"] = json_of(*one.wanted, all.median);
  if (!one.note.empty()) value["note"] = one.note;
  return value;
}

std::string verdict_of(const figure& one, double median) {
  if (!one.wanted) return "";
  if (is_not_judged(one)) return "not judged: " + one.wanted->not_judged;
  return one.wanted->met_by(median) ? "pass" : "FAIL";
}

std::vector<std::string> row_of(const figure& one) {
  const statistics all = statistics_of(one);
  const bool single = all.count == 1;
  std::vector<std::string> row = {one.cell, one.name, std::to_string(all.count), short_number(all.median)};
  for (const double tail : {all.p90, all.p99, all.worst}) row.push_back(single ? "" : short_number(tail));
  row.push_back(one.wanted ? (one.wanted->at_most ? "<= " : ">= ") + short_number(one.wanted->limit) : "");
  row.push_back(verdict_of(one, all.median));
  row.push_back(one.note);
  return row;
}

}  // namespace

target judged_from(std::size_t needed, std::size_t have, const std::string& what, target wanted) {
  if (have < needed) wanted.not_judged = std::to_string(have) + " " + what + ", " + std::to_string(needed) + " needed";
  return wanted;
}

void report::add(figure one) {
  if (!one.values.empty()) figures_.push_back(std::move(one));
}

unsigned report::missed_targets() const {
  return static_cast<unsigned>(std::ranges::count_if(figures_, missed));
}

unsigned report::targets_not_judged() const {
  return static_cast<unsigned>(std::ranges::count_if(figures_, is_not_judged));
}

bool report::is_wrong() const {
  return std::ranges::any_of(figures_, [](const figure& one) { return missed(one) && one.wanted->required; });
}

json report::to_json() const {
  json all = json::array();
  for (const figure& one : figures_) all.push_back(json_of(one));
  return {{"benchmark", benchmark_},
          {"environment", environment_},
          {"settings", settings_},
          {"missed_targets", missed_targets()},
          {"targets_not_judged", targets_not_judged()},
          {"figures", std::move(all)}};
}

void report::print(std::ostream& out) const {
  std::vector<std::vector<std::string>> rows = {
      {"CELL", "FIGURE", "N", "MEDIAN", "P90", "P99", "WORST", "TARGET", "", ""}};
  for (const figure& one : figures_) rows.push_back(row_of(one));
  const bool cells = std::ranges::any_of(figures_, [](const figure& one) { return !one.cell.empty(); });
  if (!cells) {
    for (auto& row : rows) row.erase(row.begin());
  }
  out << "\ncoppice-bench " << benchmark_ << '\n';
  print_head(out, environment_, settings_);
  out << '\n';
  print_table(out, rows);
  const unsigned missed = missed_targets();
  const unsigned open = targets_not_judged();
  const auto targets = std::ranges::count_if(figures_, [](const figure& one) { return one.wanted.has_value(); });
  out << (missed > 0        ? std::to_string(missed) + " target(s) missed"
          : targets == open ? "no target was judged"
                            : "all targets met");
  if (open > 0) out << ", " << open << " not judged";
  out << '\n';
}

std::string short_number(double value) {
  const double size = std::abs(value);
  if (size == 0) return "0";
  const int digits = static_cast<int>(std::floor(std::log10(size)));  // before the point, less one
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", std::clamp(2 - digits, 0, 6), value);  // NOLINT: bounded
  std::string shown = text;
  if (shown.find('.') == std::string::npos) return shown;
  shown.erase(shown.find_last_not_of('0') + 1);
  if (shown.back() == '.') shown.pop_back();
  return shown;
}

}  // namespace coppice::bench
