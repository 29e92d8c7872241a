#include "base/file.hpp"

#include <fcntl.h>

#include <algorithm>
#include <array>

namespace coppice {

result<unique_fd> open_file(const std::filesystem::path& path, int flags, unsigned mode) {
  unique_fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return errno_error("open " + path.string());
  return fd;
}

result<void> write_all_at(int fd, std::span<const std::byte> data, std::uint64_t offset) {
  while (!data.empty()) {
    const auto written = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_error("write");
    if (written == 0) return error{errc::no_space, 0, "write: the device accepts no more bytes"};
    data = data.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return {};
}

result<void> read_all_at(int fd, std::span<std::byte> data, std::uint64_t offset) {
  while (!data.empty()) {
    const auto got = ::pread(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error("read");
    if (got == 0) return error{errc::corrupt, 0, "read: the file ends too early"};
    data = data.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

result<std::string> read_text_file(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return std::move(fd).error();
  std::string text;
  std::array<char, 16384> chunk;
  for (;;) {
    const auto got = ::read(fd->get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error("read " + path.string());
    if (got == 0) return text;
    text.append(chunk.data(), static_cast<std::size_t>(got));
  }
}

result<std::string> read_file_end(const std::filesystem::path& path, std::size_t most) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return std::move(fd).error();
  const off_t size = ::lseek(fd->get(), 0, SEEK_END);
  if (size < 0) return errno_error("size of " + path.string());
  std::string text(std::min(most, static_cast<std::size_t>(size)), '\0');
  COPPICE_TRY(
      read_all_at(fd->get(), std::as_writable_bytes(std::span(text)), static_cast<std::uint64_t>(size) - text.size()));
  return text;
}

result<void> write_text_file(const std::filesystem::path& path, std::string_view text) {
  auto fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!fd) return std::move(fd).error();
  if (auto written = write_all_at(fd->get(), std::as_bytes(std::span(text)), 0); !written) {
    auto failure = std::move(written).error();
    failure.context += " of " + path.string();
    return failure;
  }
  if (::fsync(fd->get()) != 0) return errno_error("fsync " + path.string());
  return {};
}

result<void> sync_directory(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY | O_DIRECTORY);
  if (!fd) return std::move(fd).error();
  if (::fsync(fd->get()) != 0) return errno_error("fsync folder " + path.string());
  return {};
}

}  // namespace coppice
