#include "vmm/memory_image.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

#include "base/data_extents.hpp"
#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "vmm/process.hpp"

namespace coppice {
namespace {

// Small enough to stay in the second-level cache. Measured, 512 MiB in the page cache: read and write through such a
// buffer 2 GB/s; read into the mapping 1.3 (a page fault each 4 KiB); copy_file_range is EXDEV between file systems.
// And a full tmpfs is an error of write(2), where a mapping would raise SIGBUS.
constexpr std::uint64_t piece_bytes = 256 * kib;
constexpr std::uint64_t slowest_load = 4 * mib / 1000;  // bytes a millisecond: a disk that several loads share

// Writes the pages of `piece` that are not zero, runs of them at once: a Firecracker's full snapshot holds all of RAM,
// and what it holds of zeros would cost memory here, and every branch time.
result<void> write_data(int fd, std::span<const std::byte> piece, std::uint64_t offset) {
  for (std::size_t begin = 0; begin < piece.size();) {
    std::size_t end = begin;
    while (end < piece.size() && !is_zero_page(piece.subspan(end, page_size))) end += page_size;
    if (end > begin) COPPICE_TRY(write_all_at(fd, piece.subspan(begin, end - begin), offset + begin));
    begin = end + page_size;
  }
  return {};
}

result<void> check_size(int image_fd, const guest_memory& memory) {
  struct stat status {};
  if (::fstat(image_fd, &status) != 0) return errno_error("size of the memory image");
  if (static_cast<std::uint64_t>(status.st_size) == memory.size()) return {};
  return error{
      errc::corrupt, 0,
      "the memory image has " + std::to_string(status.st_size) + " bytes, the guest " + std::to_string(memory.size())};
}

}  // namespace

result<void> load_image(int image_fd, guest_memory& memory) {
  COPPICE_TRY(check_size(image_fd, memory));
  auto extents = data_extents(image_fd, memory.size());
  if (!extents) return std::move(extents).error();
  std::vector<std::byte> buffer(piece_bytes);
  for (const auto& data : *extents) {
    for (std::uint64_t done = 0; done < data.size;) {
      const auto size = std::min(piece_bytes, data.size - done);
      const auto offset = data.offset + done;
      const std::span piece(buffer.data(), size);
      COPPICE_TRY(read_all_at(image_fd, piece, offset));
      COPPICE_TRY(write_data(memory.fd(), piece, offset));
      done += size;
    }
  }
  return {};
}

result<void> load_image_by_process(int cgroup_procs, const std::filesystem::path& image, const guest_memory& memory,
                                   const std::filesystem::path& log) {
  const auto file = open_file(image, O_RDONLY);
  if (!file) return file.error();
  COPPICE_TRY(check_size(file->get(), memory));
  // From stdin to stdout: of=/proc/self/fd/N would be opened anew, after dd has put if= in the place of stdin.
  process_spec copy{"/bin/dd", {"bs=64K", "conv=sparse", "status=none"}, log};
  copy.stdin_fd = file->get();
  copy.stdout_fd = memory.fd();
  copy.cgroup_procs = cgroup_procs;
  if (::lseek(memory.fd(), 0, SEEK_SET) < 0) return errno_error("seek in the guest's memory");
  auto child = spawn_process(copy);
  if (!child) return std::move(child).error();
  const auto ended = child->wait(std::chrono::seconds(10) + std::chrono::milliseconds(memory.size() / slowest_load));
  if (!ended) return ended.error();
  if (!*ended) return error{errc::deadline_exceeded, 0, "load " + image.string()};
  if ((*ended)->code == 0 && (*ended)->signal == 0) return {};
  return error{errc::io, 0, "load " + image.string() + ": dd ended with " + (*ended)->describe()};
}

result<void> load_image_inside(const memory_cgroup& group, const std::filesystem::path& image,
                               const guest_memory& memory, const std::filesystem::path& log) {
  auto loaded = load_image_by_process(group.procs_fd(), image, memory, log);
  if (!group.has_killed()) return loaded;
  return error{errc::conflict, 0, "the memory limit is too low: loading " + image.string() + " went over it"};
}

}  // namespace coppice
