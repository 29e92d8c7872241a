// What a run of coppice-bench says: figures, each with its spread and its target, as JSON and as a table.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "bench/statistics.hpp"

namespace coppice::bench {

// What a figure's median has to keep.
struct target {
  double limit = 0;
  bool at_most = true;          // else at least
  bool required = false;        // missed: not slow, but wrong
  std::string not_judged = {};  // why it isn't, e.g. "12 branches, 100 needed"; empty: it is

  bool met_by(double value) const noexcept { return at_most ? value <= limit : value >= limit; }
};
inline target at_most(double limit) {
  return {limit, true};
}
inline target at_least(double limit) {
  return {limit, false};
}

// A tail of few values is their worst and says nothing: the target is shown, not judged, where `what` (branches, ...)
// are fewer than `needed`.
target judged_from(std::size_t needed, std::size_t have, const std::string& what, target wanted);

// No such thing may happen, however slow the machine: a run in which one did is wrong.
inline target never() {
  return {0, true, true};
}

// Which direction is good, and so on which side the tails lie. Of a baseline (what the machine does without Coppice)
// too, but no run is better or worse for it.
enum class better { lower, higher, lower_baseline, higher_baseline };

// One thing that was measured, once or many times. What is computed from other figures (a ratio) has one value.
struct figure {
  std::string cell;  // the settings that it belongs to, e.g. "256M/16M/random/live"; empty if there is one only
  std::string name;  // what, with the unit: "pause_us"
  better direction = better::lower;
  std::vector<double> values;
  std::optional<target> wanted = std::nullopt;
  std::string note = {};  // what a reader must know beside: which baseline a ratio is to, what a target waits for
};

// Used by one thread.
class report {
 public:
  report(std::string benchmark, nlohmann::json settings)
      : benchmark_(std::move(benchmark)), settings_(std::move(settings)) {}

  // A figure without values is left out: it could not be measured here.
  void add(figure one);
  void set_environment(nlohmann::json environment) { environment_ = std::move(environment); }

  const std::vector<figure>& figures() const noexcept { return figures_; }
  unsigned missed_targets() const;
  unsigned targets_not_judged() const;
  // A target that is required was missed.
  bool is_wrong() const;

  // {"benchmark", "environment", "settings", "missed_targets", "targets_not_judged", "figures": [{"cell", "name",
  // "better", "count", "median", "p90", ..., "values", "note", "target": {"limit", "at_most", "met", "not_judged"}}]}.
  // "note" and "not_judged" only where there is something to say; "met" is null then.
  nlohmann::json to_json() const;
  // Where and how it was measured, then all figures.
  void print(std::ostream& out) const;

 private:
  std::string benchmark_;
  nlohmann::json settings_;
  nlohmann::json environment_;
  std::vector<figure> figures_;
};

// Three significant digits, never in scientific notation: "1234", "12.3", "0.0123".
std::string short_number(double value);

}  // namespace coppice::bench
