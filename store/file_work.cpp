#include "store/file_work.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/file.hpp"

namespace coppice {
namespace {

constexpr std::size_t read_buffer_bytes = 256 * 1024;

// Hands each piece of the file to `use`, in order, and returns the checksum of all.
result<file_checksum> read_through(const std::filesystem::path& path,
                                   const std::function<result<void>(std::span<const std::byte>, std::uint64_t)>& use) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return std::move(fd).error();
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::vector<std::byte> buffer(read_buffer_bytes);
  file_checksum read;
  for (;;) {
    const auto got = ::read(fd->get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error("read " + path.string());
    if (got == 0) break;
    const auto piece = std::span(buffer).first(static_cast<std::size_t>(got));
    XXH3_64bits_update(state.get(), piece.data(), piece.size());
    COPPICE_TRY(use(piece, read.bytes));
    read.bytes += piece.size();
  }
  read.checksum = XXH3_64bits_digest(state.get());
  return read;
}

}  // namespace

error at_path(error failure, const std::filesystem::path& path) {
  failure.context += " of " + path.string();
  return failure;
}

result<file_checksum> checksum_file(const std::filesystem::path& path) {
  return read_through(path, [](std::span<const std::byte>, std::uint64_t) { return result<void>(); });
}

result<file_checksum> copy_file_checksummed(const std::filesystem::path& from, const std::filesystem::path& to) {
  auto target = open_file(to, O_WRONLY | O_CREAT | O_EXCL);
  if (!target) return std::move(target).error();
  return read_through(from, [&](std::span<const std::byte> piece, std::uint64_t offset) -> result<void> {
    auto written = write_all_at(target->get(), piece, offset);
    if (!written) return at_path(std::move(written).error(), to);
    return {};
  });
}

result<void> sync_file(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY);  // fsync(2) writes the file's pages back whoever wrote them
  if (!fd) return std::move(fd).error();
  if (::fsync(fd->get()) != 0) return errno_error("fsync " + path.string());
  return {};
}

result<void> remove_tree(const std::filesystem::path& path) {
  std::error_code failure;
  std::filesystem::remove_all(path, failure);
  if (failure) return errno_error("remove " + path.string(), failure.value());
  return {};
}

result<void> rename_new(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  auto failure = errno_error("rename " + from.string() + " to " + to.string());
  if (failure.sys_errno == EEXIST) failure.code = errc::already_exists;
  return failure;
}

result<void> make_folders(const std::filesystem::path& path, unsigned mode) {
  std::filesystem::path folder;
  for (const auto& part : path) {
    folder /= part;
    if (::mkdir(folder.c_str(), static_cast<mode_t>(mode)) == 0 || errno == EEXIST) continue;
    const int why = errno;
    struct stat status {};
    if (::stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) continue;  // e.g. EROFS at a parent
    return errno_error("create folder " + folder.string(), why);
  }
  return {};
}

std::optional<std::uint64_t> regular_file_size(const std::filesystem::path& path) noexcept {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return static_cast<std::uint64_t>(status.st_size);
}

std::uint64_t allocated_bytes(const std::filesystem::path& path) noexcept {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace coppice
