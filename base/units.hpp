// Sizes that everything agrees on, and their notation for people.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

inline constexpr std::size_t page_size = 4096;
inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;

// Parses "256M", "1G", "64K", "4096" (also "MiB" and "MB", all powers of 1024). Errors: invalid_argument.
result<std::uint64_t> parse_bytes(std::string_view text);

// "256.0 MiB", for people.
std::string format_bytes(std::uint64_t bytes);

}  // namespace coppice
