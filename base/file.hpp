// Whole-file operations that say what failed, and make things durable.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// open(2) with O_CLOEXEC. Errors: not_found, no_space, io.
result<unique_fd> open_file(const std::filesystem::path& path, int flags, unsigned mode = 0644);

// Writes all of `data` at `offset`; a short write is continued, and a write of nothing is an error. Errors: no_space,
// io.
result<void> write_all_at(int fd, std::span<const std::byte> data, std::uint64_t offset);

// Reads exactly data.size() bytes at `offset`. Errors: corrupt at end of file, io.
result<void> read_all_at(int fd, std::span<std::byte> data, std::uint64_t offset);

// The whole file as text. Errors: not_found, io.
result<std::string> read_text_file(const std::filesystem::path& path);

// The last `most` bytes of a file, or all of it. Errors: not_found, io.
result<std::string> read_file_end(const std::filesystem::path& path, std::size_t most);

// Creates or replaces `path` with `text`, and makes its content durable. Errors: no_space, io.
result<void> write_text_file(const std::filesystem::path& path, std::string_view text);

// Makes a folder's entries durable: the second half of a durable rename or create. Errors: io.
result<void> sync_directory(const std::filesystem::path& path);

}  // namespace coppice
