#include "base/units.hpp"

#include <array>
#include <charconv>
#include <cstdio>
#include <limits>

namespace coppice {

result<std::uint64_t> parse_bytes(std::string_view text) {
  const auto bad = [&] {
    return error{errc::invalid_argument, 0,
                 "'" + std::string(text) + "' is not a size: write a whole number with K, M or G, such as 256M"};
  };
  std::uint64_t number = 0;
  const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc()) return bad();
  std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  if (unit.ends_with("iB"))
    unit.remove_suffix(2);
  else if (unit.ends_with("B"))
    unit.remove_suffix(1);
  std::uint64_t factor = 1;
  if (unit == "K" || unit == "k")
    factor = kib;
  else if (unit == "M" || unit == "m")
    factor = mib;
  else if (unit == "G" || unit == "g")
    factor = gib;
  else if (!unit.empty())
    return bad();
  if (number > std::numeric_limits<std::uint64_t>::max() / factor) return bad();
  return number * factor;
}

std::string format_bytes(std::uint64_t bytes) {
  static constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto scaled = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (scaled >= 1024 && unit + 1 < units.size()) {
    scaled /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", scaled, units[unit]);
  return text.data();
}

}  // namespace coppice
