#include "bench/statistics.hpp"

#include <algorithm>
#include <cmath>

namespace coppice::bench {

statistics summarize(std::vector<double> values, bool lower_is_better) {
  if (values.empty()) return {};
  if (lower_is_better) {
    std::ranges::sort(values);
  } else {
    std::ranges::sort(values, std::greater<>());
  }
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double fraction) {
    // The small term keeps 0.99 * 100 from being rounded up to rank 100.
    const double rank = std::ceil(fraction * count - 1e-9);
    return values[static_cast<std::size_t>(std::clamp(rank, 1.0, count)) - 1];
  };
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {values.size(), values.front(), at(0.25), median, at(0.75), at(0.9), at(0.99), values.back()};
}

double median_noise(const statistics& of) {
  if (of.count < 2) return -1;
  const double quartiles = std::abs(of.p75 - of.p25);
  if (quartiles == 0) return 0;
  // Of a normal distribution: sigma = quartiles / 1.349, and the median's standard error is 1.2533 sigma / sqrt(n).
  const double standard_error = 1.2533 * quartiles / 1.349 / std::sqrt(static_cast<double>(of.count));
  return standard_error / std::abs(of.median);
}

}  // namespace coppice::bench
