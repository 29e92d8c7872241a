// What `coppice top` shows, as text: no terminal and no connection, so that it can be tested.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/prometheus_text.hpp"

namespace coppice {

// What the daemon said at one moment.
struct top_reading {
  std::chrono::steady_clock::time_point when;
  std::string url;
  nlohmann::json version;    // of /version
  nlohmann::json sandboxes;  // of /v1/sandboxes
  nlohmann::json snapshots;  // of /v1/snapshots
  metric_samples metrics;
};

// The lines of one frame: figures of the daemon, then a table of the sandboxes, the busiest first. `before`, if there
// is one, is the reading before: speeds are told between the two.
std::vector<std::string> top_lines(const top_reading& now, const top_reading* before);

// All that was read.
nlohmann::json top_json(const top_reading& now);

}  // namespace coppice
