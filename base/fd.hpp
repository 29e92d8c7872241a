// Ownership of file descriptors and mappings.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <utility>

#include "base/result.hpp"

namespace coppice {

// Owns one file descriptor; closes it. Move-only.
class unique_fd {
 public:
  unique_fd() = default;
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~unique_fd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// Owns one mmap'ed range; unmaps it. Move-only.
class mapping {
 public:
  mapping() = default;
  mapping(mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  mapping& operator=(mapping&& other) noexcept {
    if (this != &other) {
      reset();
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  ~mapping() { reset(); }

  // Maps `length` bytes of `fd` from offset 0, shared. `protection` as for mmap(2).
  static result<mapping> shared(int fd, std::size_t length, int protection);
  // Maps `length` zero bytes, private; page-aligned, fit for O_DIRECT.
  static result<mapping> anonymous(std::size_t length);

  std::span<std::byte> bytes() const noexcept { return bytes_; }
  std::byte* data() const noexcept { return bytes_.data(); }
  std::size_t size() const noexcept { return bytes_.size(); }

 private:
  explicit mapping(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}
  void reset() noexcept {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
    bytes_ = {};
  }

  std::span<std::byte> bytes_;
};

}  // namespace coppice
