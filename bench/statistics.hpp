// What a set of measurements says: median and tails, never a mean alone.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace coppice::bench {

struct statistics {
  std::size_t count = 0;
  double median = 0, p90 = 0, p99 = 0, worst = 0, best = 0;
};

// All zero if there are no values.
inline statistics summarize(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double fraction) {
    return values[std::min(values.size() - 1, static_cast<std::size_t>(fraction * static_cast<double>(values.size())))];
  };
  return {values.size(), at(0.5), at(0.9), at(0.99), values.back(), values.front()};
}

inline void to_json(nlohmann::json& json, const statistics& from) {
  json = {{"count", from.count}, {"median", from.median}, {"p90", from.p90},
          {"p99", from.p99},     {"worst", from.worst},   {"best", from.best}};
}

}  // namespace coppice::bench
