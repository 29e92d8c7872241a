#include "bench/parsing.hpp"

#include <array>
#include <charconv>

#include "base/units.hpp"

namespace coppice::bench {
namespace {

// Applies `parse` (text -> result<T>) to each part of the list.
template <class T, class Parse>
result<std::vector<T>> parse_each(std::string_view text, Parse parse) {
  auto parts = parse_list(text);
  if (!parts) return std::move(parts).error();
  std::vector<T> values;
  for (const std::string& part : *parts) {
    auto value = parse(part);
    if (!value) return std::move(value).error();
    values.push_back(*std::move(value));
  }
  return values;
}

result<std::string> parse_pattern(const std::string& text) {
  if (text == "random" || text == "sequential" || text == "zipf") return text;
  return error{errc::invalid_argument, 0, "'" + text + "': the patterns are random, sequential and zipf"};
}

}  // namespace

result<std::vector<std::string>> parse_list(std::string_view text) {
  std::vector<std::string> parts;
  for (;;) {
    const std::size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    if (part.empty()) return error{errc::invalid_argument, 0, "a list has an empty part: write it as a,b,c"};
    parts.emplace_back(part);
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

result<std::vector<std::uint64_t>> parse_sizes(std::string_view text) {
  return parse_each<std::uint64_t>(text, [](const std::string& part) { return parse_bytes(part); });
}

result<std::vector<branch_mode>> parse_modes(std::string_view text) {
  return parse_each<branch_mode>(text, [](const std::string& part) { return parse_branch_mode(part); });
}

result<std::vector<std::string>> parse_patterns(std::string_view text) {
  return parse_each<std::string>(text, parse_pattern);
}

result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  struct unit {
    std::string_view name;
    std::int64_t milliseconds;
  };
  static constexpr std::array<unit, 3> units{{{"ms", 1}, {"s", 1000}, {"m", 60'000}}};
  std::int64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const unit& each : units) {
    if (failure == std::errc() && number > 0 && number < 1'000'000 && rest == each.name)
      return std::chrono::milliseconds(number * each.milliseconds);
  }
  return error{errc::invalid_argument, 0, "'" + std::string(text) + "' is no duration: write 500ms, 60s or 2m"};
}

std::string short_size(std::uint64_t bytes) {
  if (bytes % gib == 0 && bytes > 0) return std::to_string(bytes / gib) + "G";
  if (bytes % mib == 0 && bytes > 0) return std::to_string(bytes / mib) + "M";
  if (bytes % kib == 0 && bytes > 0) return std::to_string(bytes / kib) + "K";
  return std::to_string(bytes);
}

}  // namespace coppice::bench
