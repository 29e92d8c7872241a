#include "reference_vmm/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "base/file.hpp"
#include "base/units.hpp"
#include "reference_vmm/uffd_handover.hpp"

namespace coppice::reference {

std::vector<ram_region> region_layout(std::uint64_t size) {
  std::vector<ram_region> regions;
  const std::uint64_t low = std::min(size, mmio_gap_start);
  regions.push_back({0, 0, {static_cast<std::byte*>(nullptr), static_cast<std::size_t>(low)}});
  if (size > low) {
    regions.push_back({mmio_gap_end, low, {static_cast<std::byte*>(nullptr), static_cast<std::size_t>(size - low)}});
  }
  return regions;
}

dirty_bitmap::dirty_bitmap(std::uint64_t pages)
    : words_((pages + 63) / 64), bits_(std::make_unique<std::atomic<std::uint64_t>[]>(words_)) {}

void dirty_bitmap::set(std::uint64_t page) noexcept {
  bits_[page / 64].fetch_or(1ULL << (page % 64), std::memory_order_relaxed);
}

bool dirty_bitmap::test(std::uint64_t page) const noexcept {
  return ((bits_[page / 64].load(std::memory_order_relaxed) >> (page % 64)) & 1U) != 0;
}

void dirty_bitmap::clear() noexcept {
  for (std::size_t i = 0; i < words_; ++i) bits_[i].store(0, std::memory_order_relaxed);
}

guest_ram::guest_ram(std::uint64_t size)
    : size_(size), regions_(region_layout(size)), dirty_(std::make_unique<dirty_bitmap>(size / page_size)) {}

guest_ram::~guest_ram() {
  for (const ram_region& region : regions_) {
    if (region.bytes.data() != nullptr) ::munmap(region.bytes.data(), region.bytes.size());
  }
}

result<void> guest_ram::map(int fd, int flags) {
  for (ram_region& region : regions_) {
    void* const at = ::mmap(nullptr, region.bytes.size(), PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd,
                            fd < 0 ? 0 : static_cast<off_t>(region.file_offset));
    if (at == MAP_FAILED) return errno_error("Cannot create mmap region");
    region.bytes = {static_cast<std::byte*>(at), region.bytes.size()};
  }
  return {};
}

result<guest_ram> guest_ram::anonymous(std::uint64_t size) {
  guest_ram ram(size);
  COPPICE_TRY(ram.map(-1, MAP_PRIVATE | MAP_ANONYMOUS));
  return ram;
}

result<guest_ram> guest_ram::from_file(const std::filesystem::path& path, std::uint64_t size, bool shared) {
  auto file = open_file(path, shared ? O_RDWR : O_RDONLY);
  if (!file) return error{file.error().code, file.error().sys_errno, "Failed to load guest memory"};
  struct stat info {};
  if (::fstat(file->get(), &info) != 0) return errno_error("Failed to load guest memory");
  if (static_cast<std::uint64_t>(info.st_size) < size) {
    return error{errc::invalid_argument, 0,
                 "Cannot create mmap region: The specified file offset and length is greater then file length"};
  }
  guest_ram ram(size);
  COPPICE_TRY(ram.map(file->get(), shared ? MAP_SHARED : MAP_PRIVATE));
  ram.source_ = file_identity{info.st_dev, info.st_ino};
  if (shared) ram.shared_ = std::move(*file);
  return ram;
}

result<guest_ram> guest_ram::from_uffd(const std::filesystem::path& socket, std::uint64_t size) {
  auto ram = anonymous(size);
  if (!ram) return ram;
  auto uffd = create_missing_uffd(ram->regions());
  if (!uffd) return std::move(uffd).error();
  auto connection = send_uffd(socket, uffd->get(), ram->regions());
  if (!connection) return std::move(connection).error();
  ram->uffd_ = std::move(*uffd);
  ram->uffd_socket_ = std::move(*connection);
  return ram;
}

bool guest_ram::comes_from(int fd) const noexcept {
  struct stat info {};
  return source_ && ::fstat(fd, &info) == 0 && info.st_dev == source_->device && info.st_ino == source_->inode;
}

std::span<std::byte> guest_ram::at(std::uint64_t guest_address, std::uint64_t length) noexcept {
  for (const ram_region& region : regions_) {
    if (guest_address < region.guest_address) continue;
    const std::uint64_t inside = guest_address - region.guest_address;
    if (inside <= region.bytes.size() && length <= region.bytes.size() - inside) {
      return region.bytes.subspan(inside, length);
    }
  }
  return {};
}

result<void> guest_ram::write(std::uint64_t guest_address, std::span<const std::byte> data) {
  if (data.empty()) return {};
  const std::span<std::byte> to = at(guest_address, data.size());
  if (to.empty()) return error{errc::invalid_argument, 0, "guest address outside RAM"};
  std::memcpy(to.data(), data.data(), data.size());
  const std::uint64_t offset =
      guest_address < mmio_gap_end ? guest_address : guest_address - mmio_gap_end + mmio_gap_start;
  for (std::uint64_t page = offset / page_size; page <= (offset + data.size() - 1) / page_size; ++page) {
    dirty_->set(page);
  }
  return {};
}

}  // namespace coppice::reference
