// base image + diff = full image, after the resume of a diff branch.
#include <sys/stat.h>

#include <algorithm>
#include <span>

#include "base/data_extents.hpp"
#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "base/units.hpp"
#include "store/store.hpp"

namespace coppice {
namespace {

constexpr std::size_t merge_buffer_bytes = 1 * mib;

// Writes the buffer's pages that aren't zero, in as few writes as possible.
result<void> write_nonzero(int output, std::span<const std::byte> bytes, std::uint64_t offset) {
  const std::size_t pages = bytes.size() / page_size;
  const auto is_zero = [&](std::size_t page) { return is_zero_page(bytes.subspan(page * page_size, page_size)); };
  for (std::size_t first = 0; first < pages;) {
    if (is_zero(first)) {
      ++first;
      continue;
    }
    std::size_t last = first + 1;
    while (last < pages && !is_zero(last)) ++last;
    const auto run = bytes.subspan(first * page_size, (last - first) * page_size);
    COPPICE_TRY(write_all_at(output, run, offset + first * page_size));
    first = last;
  }
  return {};
}

result<void> copy_range(int from, int to, extent range, std::vector<std::byte>& buffer) {
  for (std::uint64_t done = 0; done < range.size;) {
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), range.size - done));
    const auto bytes = std::span(buffer).first(length);
    COPPICE_TRY(read_all_at(from, bytes, range.offset + done));
    COPPICE_TRY(write_nonzero(to, bytes, range.offset + done));
    done += length;
  }
  return {};
}

// The parts of `whole` that no extent of `taken` covers; both ascending and disjoint.
std::vector<extent> subtract(const std::vector<extent>& whole, const std::vector<extent>& taken) {
  std::vector<extent> rest;
  auto cover = taken.begin();
  for (const extent& part : whole) {
    std::uint64_t at = part.offset;
    const std::uint64_t end = part.offset + part.size;
    while (cover != taken.end() && cover->offset + cover->size <= at) ++cover;
    for (auto next = cover; at < end && next != taken.end() && next->offset < end; ++next) {
      if (next->offset > at) rest.push_back({at, next->offset - at});
      at = std::max(at, next->offset + next->size);
    }
    if (at < end) rest.push_back({at, end - at});
  }
  return rest;
}

// A hole of the diff means "as in the base", so a file system that can't keep single pages as holes would turn pages of
// the base into zeros. Errors: io.
result<void> check_hole_precision(int diff, int output, std::uint64_t size) {
  struct stat status {};
  if (::fstat(diff, &status) != 0) return errno_error("stat of the diff");
  if (status.st_blksize > static_cast<blksize_t>(page_size)) {
    return error{errc::io, 0,
                 "the diff's file system keeps holes in blocks of " + std::to_string(status.st_blksize) +
                     " bytes, larger than a page: use mode live or full, or another file system"};
  }
  const auto written = data_extents(output, size);
  if (!written) return written.error();
  if (!written->empty()) {
    return error{errc::io, 0, "the output isn't all hole, or its file system doesn't report holes"};
  }
  return {};
}

}  // namespace

result<void> compose_diff_image(int base, int diff, int output, std::uint64_t size) {
  if (size % page_size != 0) return error{errc::io, 0, "an image of no whole number of pages"};
  COPPICE_TRY(check_hole_precision(diff, output, size));
  const auto diff_parts = data_extents(diff, size);
  if (!diff_parts) return diff_parts.error();
  const auto base_parts = data_extents(base, size);
  if (!base_parts) return base_parts.error();
  std::vector<std::byte> buffer(merge_buffer_bytes);
  for (const extent& part : subtract(*base_parts, *diff_parts)) COPPICE_TRY(copy_range(base, output, part, buffer));
  for (const extent& part : *diff_parts) COPPICE_TRY(copy_range(diff, output, part, buffer));
  return {};
}

}  // namespace coppice
