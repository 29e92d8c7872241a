// File operations of the store, each naming the path it failed at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "base/result.hpp"

namespace coppice {

// Puts " of <path>" behind a failure's context.
error at_path(error failure, const std::filesystem::path& path);

struct file_checksum {
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;  // XXH3-64 of the content
};

// Errors: not_found, io.
result<file_checksum> checksum_file(const std::filesystem::path& path);

// Copies `from` to the new file `to` (not yet durable) and returns what was copied. Errors: not_found, no_space, io.
result<file_checksum> copy_file_checksummed(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes a file's content durable. Errors: not_found, no_space, io.
result<void> sync_file(const std::filesystem::path& path);

// Removes a file or a whole folder; no error if it isn't there. Errors: io.
result<void> remove_tree(const std::filesystem::path& path);

// Renames; an existing `to` is an error, never replaced. Errors: already_exists, not_found, no_space, io.
result<void> rename_new(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes the folder and its parents; no error if it is there. Errors: no_space, io.
result<void> make_folders(const std::filesystem::path& path, unsigned mode);

// Size of a regular file; none if there is no such file.
std::optional<std::uint64_t> regular_file_size(const std::filesystem::path& path) noexcept;

// Disk space that a file takes up, 0 if it isn't there.
std::uint64_t allocated_bytes(const std::filesystem::path& path) noexcept;

}  // namespace coppice
