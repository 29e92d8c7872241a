#include "cli/prometheus_text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace coppice {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
}

void skip_blanks(std::string_view& rest) {
  while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) rest.remove_prefix(1);
}

bool take(std::string_view& rest, char wanted) {
  if (rest.empty() || rest.front() != wanted) return false;
  rest.remove_prefix(1);
  return true;
}

std::string take_name(std::string_view& rest) {
  std::size_t length = 0;
  while (length < rest.size() && is_name_character(rest[length])) ++length;
  std::string name(rest.substr(0, length));
  rest.remove_prefix(length);
  return name;
}

// A label's value, after its opening quote; false if it has no end.
bool take_value(std::string_view& rest, std::string& value) {
  while (!rest.empty() && rest.front() != '"') {
    char c = rest.front();
    rest.remove_prefix(1);
    if (c == '\\' && !rest.empty()) {
      c = rest.front() == 'n' ? '\n' : rest.front();
      rest.remove_prefix(1);
    }
    value += c;
  }
  return take(rest, '"');
}

bool take_labels(std::string_view& rest, metric_samples::labels& labels) {
  if (!take(rest, '{')) return true;
  while (!take(rest, '}')) {
    skip_blanks(rest);
    const std::string name = take_name(rest);
    if (name.empty() || !take(rest, '=') || !take(rest, '"') || !take_value(rest, labels[name])) return false;
    take(rest, ',');
    skip_blanks(rest);
  }
  return true;
}

std::optional<double> parse_number(std::string_view text) {
  take(text, '+');
  double value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool parse_line(std::string_view rest, metric_sample& sample) {
  sample.name = take_name(rest);
  if (sample.name.empty() || !take_labels(rest, sample.labels)) return false;
  skip_blanks(rest);
  const auto value = parse_number(rest.substr(0, rest.find_first_of(" \t\r")));
  if (value) sample.value = *value;
  return value.has_value();
}

bool has_labels(const metric_sample& sample, const metric_samples::labels& wanted) {
  return std::ranges::all_of(wanted, [&](const auto& label) {
    const auto found = sample.labels.find(label.first);
    return found != sample.labels.end() && found->second == label.second;
  });
}

}  // namespace

result<metric_samples> metric_samples::parse(std::string_view text) {
  metric_samples samples;
  for (unsigned line = 1; !text.empty(); ++line) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto content = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.empty() || content.front() == '#') continue;
    metric_sample sample;
    if (!parse_line(content, sample)) {
      return error{errc::corrupt, 0, "line " + std::to_string(line) + " is none of Prometheus's text format"};
    }
    samples.all_.push_back(std::move(sample));
  }
  return samples;
}

double metric_samples::sum(std::string_view name, const labels& wanted) const {
  double total = 0;
  for (const auto& sample : all_) {
    if (sample.name == name && has_labels(sample, wanted)) total += sample.value;
  }
  return total;
}

std::optional<double> metric_samples::quantile(std::string_view histogram, double q, const labels& wanted) const {
  std::map<double, double> buckets;  // upper bound -> observations up to it
  for (const auto& sample : all_) {
    if (sample.name != std::string(histogram) + "_bucket" || !has_labels(sample, wanted)) continue;
    const auto bound = sample.labels.find("le");
    const auto parsed = bound == sample.labels.end() ? std::nullopt : parse_number(bound->second);
    if (parsed) buckets[*parsed] += sample.value;
  }
  if (buckets.empty() || buckets.rbegin()->second <= 0) return std::nullopt;
  const double rank = q * buckets.rbegin()->second;
  double lower = 0;
  double below = 0;
  for (const auto& [bound, count] : buckets) {
    if (count >= rank && count > below) {
      if (std::isinf(bound)) return lower;  // no more is known than that it is above
      return lower + (bound - lower) * (rank - below) / (count - below);
    }
    lower = bound;
    below = count;
  }
  return lower;
}

}  // namespace coppice
