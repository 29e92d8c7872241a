// The same bytes written without the engine: what the copy is measured against. All return seconds.
#pragma once

#include <filesystem>
#include <span>

#include "base/result.hpp"

namespace coppice::bench {

// By memcpy. REQUIRES: `target` is as large as `source`.
double memcpy_seconds(std::span<const std::byte> source, std::span<std::byte> target);
// Into a new file by O_DIRECT writes of 1 MiB, 8 in flight by io_uring, as the engine does. Errors: no_space, io (the
// file system refuses O_DIRECT).
result<double> direct_seconds(std::span<const std::byte> source, const std::filesystem::path& path);
// Into a new file through the page cache; the second is with fsync.
struct buffered_times {
  double write = 0, write_and_sync = 0;
};
result<buffered_times> buffered_seconds(std::span<const std::byte> source, const std::filesystem::path& path);

}  // namespace coppice::bench
