// Reads what /metrics answers: Prometheus's text format 0.0.4.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace coppice {

struct metric_sample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// All samples of one answer. Immutable: usable from any thread.
class metric_samples {
 public:
  using labels = std::map<std::string, std::string>;

  // Comments and time stamps are passed over. Errors: corrupt (which line).
  static result<metric_samples> parse(std::string_view text);

  const std::vector<metric_sample>& all() const noexcept { return all_; }

  // Added up over all series of that name which have these labels; 0 if there is none.
  double sum(std::string_view name, const labels& wanted = {}) const;

  // The value below which the part `q` (0 to 1) of a histogram's observations lies, as histogram_quantile() of
  // Prometheus estimates it; series with these labels are added up. Nothing if nothing was observed.
  std::optional<double> quantile(std::string_view histogram, double q, const labels& wanted = {}) const;

 private:
  std::vector<metric_sample> all_;
};

}  // namespace coppice
