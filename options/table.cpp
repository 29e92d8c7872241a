#include "options/table.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

namespace coppice {

void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    out << line << '\n';
  }
}

std::string age_since(std::uint64_t unix_seconds) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const auto age = std::max<std::int64_t>(0, seconds - static_cast<std::int64_t>(unix_seconds));
  if (age < 120) return std::to_string(age) + "s";
  if (age < 2 * 3600) return std::to_string(age / 60) + "m";
  if (age < 2 * 86400) return std::to_string(age / 3600) + "h";
  return std::to_string(age / 86400) + "d";
}

std::string formatted(const char* format, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, value);  // NOLINT: bounded
  return text.data();
}

std::string format_milliseconds(double microseconds) {
  return formatted("%.2f ms", microseconds / 1000);
}

}  // namespace coppice
