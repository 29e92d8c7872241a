#include "cli/demo_report.hpp"

#include <algorithm>
#include <cstdio>

#include "base/units.hpp"
#include "options/table.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using figure = std::uint64_t branch_figures::*;

struct spread {
  double median = 0;
  double worst = 0;
};

struct named_figure {
  const char* key;    // in JSON
  const char* title;  // in the table
  figure which;
};

constexpr named_figure times[] = {
    {"pause_us", "pause the VM", &branch_figures::pause_us},
    {"snapshot_us", "save the vmstate", &branch_figures::snapshot_us},
    {"rearm_us", "re-arm the pages", &branch_figures::rearm_us},
    {"resume_us", "resume the VM", &branch_figures::resume_us},
    {"total_us", "whole pause", &branch_figures::total_us},
    {"longest_stall_us", "longest stall in the guest", &branch_figures::stall_us},
};

constexpr named_figure pages[] = {
    {"bulk_pages", "pages by bulk stream", &branch_figures::bulk_pages},
    {"captured_pages", "pages captured at faults", &branch_figures::captured_pages},
    {"zero_pages", "pages all zero", &branch_figures::zero_pages},
    {"hole_pages", "pages never touched", &branch_figures::hole_pages},
};

spread spread_of(std::vector<double> values, bool high_is_bad = true) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, high_is_bad ? values.back() : values.front()};
}

spread spread_of(const demo_results& results, figure which) {
  std::vector<double> values;
  for (const auto& branch : results.branches) values.push_back(static_cast<double>(branch.*which));
  return spread_of(std::move(values));
}

// Bytes a second of each copy that wrote anything; the worst is the slowest.
spread copy_speed(const demo_results& results) {
  std::vector<double> values;
  for (const auto& branch : results.branches) {
    if (branch.copy_us == 0 || branch.written_bytes == 0) continue;
    values.push_back(static_cast<double>(branch.written_bytes) * 1e6 / static_cast<double>(branch.copy_us));
  }
  return spread_of(std::move(values), false);
}

std::uint64_t field(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<std::uint64_t>() : 0;
}

}  // namespace

branch_figures figures_of(const json& branch) {
  const json pause = branch.value("pause", json::object());
  const json copy = branch.value("copy", json::object());
  branch_figures figures;
  figures.pause_us = field(pause, "pause_us");
  figures.snapshot_us = field(pause, "snapshot_us");
  figures.rearm_us = field(pause, "rearm_us");
  figures.resume_us = field(pause, "resume_us");
  figures.total_us = field(pause, "total_us");
  figures.bulk_pages = field(copy, "bulk_pages");
  figures.captured_pages = field(copy, "captured_pages");
  figures.zero_pages = field(copy, "zero_pages");
  figures.hole_pages = field(copy, "hole_pages");
  figures.written_bytes = field(copy, "written_bytes");
  figures.copy_us = field(copy, "copy_us");
  return figures;
}

json to_json(const demo_results& results) {
  json value = {{"vmm", results.vmm},
                {"memory_bytes", results.memory_bytes},
                {"branches", results.branches.size()},
                {"images_verified", results.images},
                {"children_checked", results.children},
                {"checked_pages", results.checked_pages},
                {"bad_pages", results.bad_pages},
                {"gaps", results.gaps},
                {"idle_longest_stall_us", results.idle_stall_us},
                {"seconds", results.seconds},
                {"ok", results.failure.empty()}};
  if (!results.failure.empty()) value["error"] = results.failure;
  for (const auto& [key, title, which] : times) {
    const spread both = spread_of(results, which);
    value[key] = {{"median", both.median}, {"worst", both.worst}};
  }
  for (const auto& [key, title, which] : pages) value[key] = {{"median", spread_of(results, which).median}};
  const spread speed = copy_speed(results);
  value["copy_bytes_per_second"] = {{"median", speed.median}, {"worst", speed.worst}};
  json each = json::array();
  for (const auto& branch : results.branches) {
    json one = {{"written_bytes", branch.written_bytes}, {"copy_us", branch.copy_us}};
    for (const auto& [key, title, which] : times) one[key] = branch.*which;
    for (const auto& [key, title, which] : pages) one[key] = branch.*which;
    each.push_back(std::move(one));
  }
  value["each_branch"] = std::move(each);
  return value;
}

void print_results(std::ostream& out, const demo_results& results) {
  out << '\n'
      << results.branches.size() << " live branches of a guest of " << format_bytes(results.memory_bytes)
      << " that wrote all the while (" << results.vmm << ")\n\n";
  std::vector<std::vector<std::string>> rows = {{"", "MEDIAN", "WORST"}};
  for (const auto& [key, title, which] : times) {
    const spread both = spread_of(results, which);
    rows.push_back({title, format_milliseconds(both.median), format_milliseconds(both.worst)});
  }
  rows.push_back({"  the same, nothing branched", "", format_milliseconds(static_cast<double>(results.idle_stall_us))});
  for (const auto& [key, title, which] : pages) {
    const spread both = spread_of(results, which);
    rows.push_back({title, formatted("%.0f", both.median), formatted("%.0f", both.worst)});
  }
  const spread speed = copy_speed(results);
  rows.push_back({"copy speed", formatted("%.2f GB/s", speed.median / 1e9), formatted("%.2f GB/s", speed.worst / 1e9)});
  print_table(out, rows);
  out << '\n'
      << results.images << " images verified, " << results.children << " children run, " << results.checked_pages
      << " pages checked, " << results.gaps << " gaps\n"
      << "bad pages: " << results.bad_pages << '\n'
      << formatted("took %.1f s\n", results.seconds);
}

}  // namespace coppice
