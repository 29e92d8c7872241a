// `coppice-bench compare`: two runs of a benchmark, figure by figure.
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace coppice::bench {

enum class verdict { better, worse, same, only_in_one };

struct comparison {
  std::string cell;
  std::string name;
  double before = 0, after = 0;  // medians
  double ratio = 0;              // after / before; 0 if before is 0
  double noise = 0;              // relative: a ratio within 1 +- noise says nothing
  verdict what = verdict::same;
};

// `before` and `after`: what report::to_json made. Noise is three standard errors of both medians together, and at
// least `least_noise` (`least_noise_of_one` where a figure has one value only). A baseline is always `same`. Errors:
// corrupt (no report), invalid_argument (of different benchmarks).
inline constexpr double least_noise = 0.05;
inline constexpr double least_noise_of_one = 0.2;
result<std::vector<comparison>> compare(const nlohmann::json& before, const nlohmann::json& after);

// What of the machine or the settings differs: the reasons not to trust a comparison.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& after);

void print_comparison(std::ostream& out, const std::vector<comparison>& all);
nlohmann::json to_json(const std::vector<comparison>& all);

}  // namespace coppice::bench
