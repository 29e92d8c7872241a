// Checksums of a memory image: one per 2 MiB chunk, built from page digests so that pages may be hashed in any order,
// by whoever has them in the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "base/units.hpp"

namespace coppice {

inline constexpr std::size_t chunk_size = 2 * mib;
inline constexpr std::size_t pages_per_chunk = chunk_size / page_size;

// XXH3-64 of one page. REQUIRES: page.size() == page_size
std::uint64_t page_digest(std::span<const std::byte> page) noexcept;

// The digest of a page of zeros: what holes count as.
std::uint64_t zero_page_digest() noexcept;

// Whether all bytes are zero.
bool is_zero_page(std::span<const std::byte> page) noexcept;

// The checksum of each chunk: XXH3-64 of its page digests, little-endian, in order; the last chunk may be short.
std::vector<std::uint64_t> chunk_checksums(std::span<const std::uint64_t> page_digests);

// The checksum of the whole image: XXH3-64 of its chunk checksums.
std::uint64_t image_checksum(std::span<const std::uint64_t> chunk_checksums) noexcept;

// Reads `size` bytes of the image file (holes unread) and returns its chunk checksums. Errors: invalid_argument
// (no whole number of pages), corrupt (too short), io.
result<std::vector<std::uint64_t>> checksum_image_file(int fd, std::uint64_t size);

}  // namespace coppice
