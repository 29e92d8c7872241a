// The lists and times of coppice-bench's command line. Pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/branch_stats.hpp"
#include "base/result.hpp"

namespace coppice::bench {

// "a,b,c" -> {"a", "b", "c"}. Errors: invalid_argument (an empty part).
result<std::vector<std::string>> parse_list(std::string_view text);
// "256M,1G". Errors: invalid_argument.
result<std::vector<std::uint64_t>> parse_sizes(std::string_view text);
// "live,full". Errors: invalid_argument.
result<std::vector<branch_mode>> parse_modes(std::string_view text);
// "random,zipf": patterns of the journal guest. Errors: invalid_argument.
result<std::vector<std::string>> parse_patterns(std::string_view text);
// "500ms", "60s", "2m". Errors: invalid_argument.
result<std::chrono::milliseconds> parse_duration(std::string_view text);

// As short as parse_sizes reads it: "256M", "1G", "12K".
std::string short_size(std::uint64_t bytes);

}  // namespace coppice::bench
