#include "reference_vmm/snapshot_memory.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/data_extents.hpp"
#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "base/units.hpp"

namespace coppice::reference {
namespace {

// `keep`: what the file holds stays, if it has the right size. A file that the RAM was made from is never emptied:
// the pages that the guest did not write would go with it.
result<unique_fd> open_memory_file(const std::filesystem::path& path, const guest_ram& ram, bool keep) {
  auto file = open_file(path, O_CREAT | O_RDWR);
  if (!file) {
    return error{file.error().code, file.error().sys_errno, "Cannot perform open on the memory backing file"};
  }
  struct stat info {};
  if (::fstat(file->get(), &info) != 0) return errno_error("fstat " + path.string());
  const bool fits = static_cast<std::uint64_t>(info.st_size) == ram.size();
  const bool empty_it = !(keep && fits) && !ram.comes_from(file->get());
  if ((empty_it && ::ftruncate(file->get(), 0) != 0) || ::ftruncate(file->get(), static_cast<off_t>(ram.size())) != 0) {
    return errno_error("truncate " + path.string());
  }
  return file;
}

// Writes the pages of [offset, offset + bytes.size()) that `wanted(page_index, page)` accepts, runs of them at once.
template <class Wanted>
result<void> write_pages(int fd, std::span<const std::byte> bytes, std::uint64_t offset, Wanted wanted) {
  constexpr std::size_t longest_run = 4 * mib;
  std::size_t run_start = 0, run_end = 0;
  for (std::size_t at = 0; at < bytes.size(); at += page_size) {
    if (wanted((offset + at) / page_size, bytes.subspan(at, page_size))) {
      if (run_start == run_end) run_start = at;
      run_end = at + page_size;
      if (run_end - run_start < longest_run) continue;
    }
    if (run_start == run_end) continue;
    COPPICE_TRY(write_all_at(fd, bytes.subspan(run_start, run_end - run_start), offset + run_start));
    run_start = run_end = 0;
  }
  if (run_start == run_end) return {};
  return write_all_at(fd, bytes.subspan(run_start, run_end - run_start), offset + run_start);
}

result<void> finish(int fd, const std::filesystem::path& path, guest_ram& ram) {
  if (::fsync(fd) != 0) return errno_error("fsync " + path.string());
  ram.dirty().clear();
  return {};
}

}  // namespace

result<void> write_full_memory(const std::filesystem::path& path, guest_ram& ram) {
  auto file = open_memory_file(path, ram, false);
  if (!file) return std::move(file).error();
  const bool own = ram.comes_from(file->get());
  if (own && ram.shared_fd() >= 0) return finish(file->get(), path, ram);  // it is the RAM already
  // Reading a hole of shared memory would fill it: there, only what is there is read.
  std::vector<extent> extents{{0, ram.size()}};
  if (ram.shared_fd() >= 0) {
    auto found = data_extents(ram.shared_fd(), ram.size());
    if (!found) return std::move(found).error();
    extents = std::move(*found);
  }
  // What the file held there before is gone, unless it is the guest's own.
  const auto wanted = [own](std::uint64_t, std::span<const std::byte> page) { return own || !is_zero_page(page); };
  for (const extent& each : extents) {
    for (const ram_region& region : ram.regions()) {
      const std::uint64_t begin = std::max(each.offset, region.file_offset);
      const std::uint64_t end = std::min(each.offset + each.size, region.file_offset + region.bytes.size());
      if (begin >= end) continue;
      const auto bytes = region.bytes.subspan(begin - region.file_offset, end - begin);
      COPPICE_TRY(write_pages(file->get(), bytes, begin, wanted));
    }
  }
  return finish(file->get(), path, ram);
}

result<void> write_dirty_memory(const std::filesystem::path& path, guest_ram& ram) {
  auto file = open_memory_file(path, ram, true);
  if (!file) return std::move(file).error();
  const auto is_dirty = [&](std::uint64_t page, std::span<const std::byte>) { return ram.dirty().test(page); };
  for (const ram_region& region : ram.regions()) {
    COPPICE_TRY(write_pages(file->get(), region.bytes, region.file_offset, is_dirty));
  }
  return finish(file->get(), path, ram);
}

}  // namespace coppice::reference
