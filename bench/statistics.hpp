// What a set of measurements says: median and tails, never a mean alone.
#pragma once

#include <cstddef>
#include <vector>

namespace coppice::bench {

struct statistics {
  std::size_t count = 0;
  double best = 0, p25 = 0, median = 0, p75 = 0, p90 = 0, p99 = 0, worst = 0;
};

// Quantiles by nearest rank (so each is a value that was measured), but the median, which is the mean of the middle two
// of an even count. `lower_is_better` says which end is the worst: tails lie on that side (p90 of a speed is the speed
// that 9 of 10 measurements reach). All zero if there are no values.
statistics summarize(std::vector<double> values, bool lower_is_better = true);

// The relative uncertainty of the median (one standard error, from the distance of the quartiles). 0 to infinity; of a
// single value nothing is known: negative.
double median_noise(const statistics& of);

}  // namespace coppice::bench
