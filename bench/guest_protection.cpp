#include "bench/guest_protection.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "copy_engine/write_protect.hpp"

namespace coppice::bench {
namespace {

namespace fs = std::filesystem;

// As the copy engine's pre-arm (copy_engine/slice_scheduler.cpp).
constexpr std::uint64_t slice_bytes = 8 * mib;
constexpr std::chrono::microseconds slice_rest{100};

// Where `process` has mapped the memfd called `name` to write to it (proc_pid_maps(5)).
result<std::vector<memory_region>> mappings_of(pid_t process, const std::string& name) {
  const auto text = read_text_file("/proc/" + std::to_string(process) + "/maps");
  if (!text) return text.error();
  std::vector<memory_region> found;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" rw-s ") == std::string::npos || !line.ends_with("/memfd:" + name + " (deleted)")) continue;
    std::istringstream fields(line);
    std::uint64_t begin = 0, end = 0, offset = 0;
    char dash = 0;
    std::string rights;
    if (fields >> std::hex >> begin >> dash >> end >> rights >> offset) found.push_back({begin, end - begin, offset});
  }
  if (found.empty()) return error{errc::unsupported, 0, "the VMM has no shared memory called " + name};
  return found;
}

// A duplicate of another process's descriptor.
result<unique_fd> take_fd(int process, int fd) {
  // Raw: glibc 2.36 is the first to wrap these; both calls take and return plain numbers.
  unique_fd taken(static_cast<int>(::syscall(SYS_pidfd_getfd, process, fd, 0U)));
  if (!taken) return errno_error("take a descriptor of the daemon");
  return taken;
}

}  // namespace

result<guest_protection> guest_protection::open(pid_t daemon, pid_t vmm, const std::string& sandbox) {
  auto regions = mappings_of(vmm, sandbox);
  if (!regions) return std::move(regions).error();
  const unique_fd process(static_cast<int>(::syscall(SYS_pidfd_open, daemon, 0U)));
  if (!process) return errno_error("open the daemon's process");
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(daemon) + "/fd", failure)) {
    std::error_code gone;
    if (fs::read_symlink(entry.path(), gone) != "anon_inode:[userfaultfd]" || gone) continue;
    auto uffd = take_fd(process.get(), std::stoi(entry.path().filename().string()));
    if (!uffd) return error{errc::unsupported, uffd.error().sys_errno, uffd.error().message()};
    // Another VM's refuses these addresses.
    if (set_write_protection(uffd->get(), regions->front().host_address, page_size, false))
      return guest_protection(*std::move(uffd), *std::move(regions));
  }
  return error{errc::unsupported, failure.value(), "the daemon has no userfaultfd of " + sandbox};
}

result<void> guest_protection::change(std::uint64_t end, bool protect) {
  for (const memory_region& region : regions_) {
    const std::uint64_t length = std::min(region.size, end - std::min(end, region.file_offset));
    for (std::uint64_t at = 0; at < length; at += slice_bytes) {
      const std::uint64_t slice = std::min(slice_bytes, length - at);
      COPPICE_TRY(set_write_protection(uffd_.get(), region.host_address + at, slice, protect));
      std::this_thread::sleep_for(slice_rest);
    }
  }
  return {};
}

result<void> guest_protection::protect(std::uint64_t hot_end) {
  COPPICE_TRY(change(~std::uint64_t{0}, true));
  return change(hot_end, true);
}

result<void> guest_protection::lift() {
  return change(~std::uint64_t{0}, false);
}

}  // namespace coppice::bench
