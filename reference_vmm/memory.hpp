// Guest RAM: one or two regions (Firecracker's MMIO gap lies between), as one memory file in the order of their
// addresses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice::reference {

inline constexpr std::uint64_t mmio_gap_start = 0xd0000000;
inline constexpr std::uint64_t mmio_gap_end = 0x100000000;

struct ram_region {
  std::uint64_t guest_address = 0;
  std::uint64_t file_offset = 0;
  std::span<std::byte> bytes;  // in this process
};

// The regions of `size` bytes of RAM, without memory behind them yet.
std::vector<ram_region> region_layout(std::uint64_t size);

// A bit for each page of the memory file. Thread-safe: bits may be set while others are read.
class dirty_bitmap {
 public:
  explicit dirty_bitmap(std::uint64_t pages);
  void set(std::uint64_t page) noexcept;
  bool test(std::uint64_t page) const noexcept;
  void clear() noexcept;

 private:
  std::size_t words_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> bits_;
};

// Owns the mappings; move-only. The guest writes through them at any time while it runs.
class guest_ram {
 public:
  // Zero pages, private.
  static result<guest_ram> anonymous(std::uint64_t size);
  // The file's bytes; `shared`: the file is the RAM (opened read-write), else what the guest writes stays private.
  // Errors: not_found, invalid_argument (the file is too short), io.
  static result<guest_ram> from_file(const std::filesystem::path& path, std::uint64_t size, bool shared);
  // Pages come on demand from the handler that listens on `socket`; the userfaultfd is kept as Firecracker keeps it.
  // Errors: not_found (nobody listens), unsupported, io.
  static result<guest_ram> from_uffd(const std::filesystem::path& socket, std::uint64_t size);

  guest_ram(guest_ram&&) noexcept = default;
  guest_ram& operator=(guest_ram&&) noexcept = delete;
  ~guest_ram();

  std::uint64_t size() const noexcept { return size_; }
  std::span<const ram_region> regions() const noexcept { return regions_; }
  // The file that is this RAM, if it is shared; else -1.
  int shared_fd() const noexcept { return shared_.get(); }
  // Whether the open file is the one that this RAM was made from, shared or not.
  bool comes_from(int fd) const noexcept;
  dirty_bitmap& dirty() noexcept { return *dirty_; }

  // The memory at a guest-physical address, or an empty span if it is not all in one region.
  std::span<std::byte> at(std::uint64_t guest_address, std::uint64_t length) noexcept;
  // Writes for the VMM itself, marking pages dirty. Errors: invalid_argument (outside RAM).
  result<void> write(std::uint64_t guest_address, std::span<const std::byte> data);

 private:
  struct file_identity {
    std::uint64_t device, inode;
  };
  explicit guest_ram(std::uint64_t size);
  result<void> map(int fd, int flags);

  std::uint64_t size_;
  std::vector<ram_region> regions_;
  std::unique_ptr<dirty_bitmap> dirty_;
  unique_fd shared_;
  std::optional<file_identity> source_;  // of from_file
  unique_fd uffd_;                       // of the Uffd backend
  unique_fd uffd_socket_;                // likewise: Firecracker leaves it open for good
};

}  // namespace coppice::reference
