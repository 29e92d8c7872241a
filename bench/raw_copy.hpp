// The same bytes written without the engine: what the copy is measured against. All return seconds.
#pragma once

#include <filesystem>
#include <span>

#include "base/result.hpp"

namespace coppice::bench {

// By memcpy. REQUIRES: `target` is as large as `source`.
double memcpy_seconds(std::span<const std::byte> source, std::span<std::byte> target);
// What the writing thread does with the bytes beside.
enum class beside {
  nothing,
  digests,  // looks for zero pages and computes the page digests, as the copy engine does while a write is under way
};
// Into a new file by O_DIRECT writes of 1 MiB, 8 in flight by io_uring: the copy engine's pattern. Errors: no_space, io
// (the file system refuses O_DIRECT).
result<double> direct_seconds(std::span<const std::byte> source, const std::filesystem::path& path, beside what);
// Into a file that is there, by pwrite(2) of 1 MiB each, one thread. Errors: io.
result<double> pwrite_seconds(std::span<const std::byte> source, const std::filesystem::path& path, beside what);
// Into a new file through the page cache; the second is with fsync.
struct buffered_times {
  double write = 0, write_and_sync = 0;
};
result<buffered_times> buffered_seconds(std::span<const std::byte> source, const std::filesystem::path& path);

}  // namespace coppice::bench
