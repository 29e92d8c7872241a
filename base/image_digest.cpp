#include "base/image_digest.hpp"

#include <sys/stat.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the same digests, by the widest vectors that this CPU has
#else
#include <xxhash.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "base/data_extents.hpp"
#include "base/file.hpp"

namespace coppice {

std::uint64_t page_digest(std::span<const std::byte> page) noexcept {
  return XXH3_64bits(page.data(), page.size());
}

std::uint64_t zero_page_digest() noexcept {
  static const std::uint64_t digest = [] {
    const std::array<std::byte, page_size> zeros{};
    return page_digest(zeros);
  }();
  return digest;
}

bool is_zero_page(std::span<const std::byte> page) noexcept {
  // A non-zero page nearly always shows it in its first bytes, so ask there before reading it all. That the page equals
  // itself shifted by one word, which is zero, makes it zero throughout.
  std::uint64_t first = 0;
  std::memcpy(&first, page.data(), sizeof first);
  return first == 0 && std::memcmp(page.data(), page.data() + sizeof first, page.size() - sizeof first) == 0;
}

std::vector<std::uint64_t> chunk_checksums(std::span<const std::uint64_t> page_digests) {
  std::vector<std::uint64_t> checksums;
  checksums.reserve((page_digests.size() + pages_per_chunk - 1) / pages_per_chunk);
  for (std::size_t first = 0; first < page_digests.size(); first += pages_per_chunk) {
    const auto chunk = page_digests.subspan(first, std::min(pages_per_chunk, page_digests.size() - first));
    checksums.push_back(XXH3_64bits(chunk.data(), chunk.size_bytes()));
  }
  return checksums;
}

std::uint64_t image_checksum(std::span<const std::uint64_t> chunk_checksums) noexcept {
  return XXH3_64bits(chunk_checksums.data(), chunk_checksums.size_bytes());
}

result<std::vector<std::uint64_t>> checksum_image_file(int fd, std::uint64_t size) {
  if (size % page_size != 0) {
    return error{errc::invalid_argument, 0,
                 "an image of " + std::to_string(size) + " bytes: must be a multiple of 4096"};
  }
  // Beyond its end a file looks like a hole, so a shortened one would pass for one that ends in zeros.
  struct stat status {};
  if (::fstat(fd, &status) != 0) return errno_error("size of the image");
  if (static_cast<std::uint64_t>(status.st_size) < size) {
    return error{errc::corrupt, 0,
                 "the image ends after " + std::to_string(status.st_size) + " of " + std::to_string(size) + " bytes"};
  }
  auto extents = data_extents(fd, size);
  if (!extents) return std::move(extents).error();
  std::vector<std::uint64_t> digests(size / page_size, zero_page_digest());
  std::vector<std::byte> buffer(chunk_size);
  for (const extent& part : *extents) {
    for (std::uint64_t offset = part.offset; offset < part.offset + part.size; offset += chunk_size) {
      const std::size_t length = std::min<std::uint64_t>(chunk_size, part.offset + part.size - offset);
      COPPICE_TRY(read_all_at(fd, std::span(buffer).first(length), offset));
      for (std::size_t at = 0; at < length; at += page_size) {
        digests[(offset + at) / page_size] = page_digest(std::span(buffer).subspan(at, page_size));
      }
    }
  }
  return chunk_checksums(digests);
}

}  // namespace coppice
