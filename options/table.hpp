// Columns and figures for people.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace coppice {

// The first row is the heading. Each column is as wide as its longest cell; nothing follows the last one.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

// "3s", "5m", "2h", "4d": the time since `unix_seconds`.
std::string age_since(std::uint64_t unix_seconds);

// `value` by a printf format for one double, of at most 63 characters.
std::string formatted(const char* format, double value);

// "1.25 ms"
std::string format_milliseconds(double microseconds);

}  // namespace coppice
