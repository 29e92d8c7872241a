// SHA-256, for comparing what must not be kept or told apart by time.
#pragma once

#include <array>
#include <string_view>

namespace coppice {

using sha256_digest = std::array<unsigned char, 32>;

// Thread-safe.
sha256_digest sha256(std::string_view text);

// In a time that does not depend on where they differ.
bool equal_in_constant_time(const sha256_digest& left, const sha256_digest& right) noexcept;

}  // namespace coppice
