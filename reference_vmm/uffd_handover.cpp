#include "reference_vmm/uffd_handover.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "reference_vmm/memory.hpp"

namespace coppice::reference {
namespace {

// Newer than some kernel headers: a feature, and the request of /dev/userfaultfd (Linux 6.1).
constexpr std::uint64_t wp_unpopulated = 1ULL << 13;
constexpr unsigned long uffd_ioc_new = _IO(0xAA, 0x00);

// By system call, which needs privileges, or else by the device, which needs access to its file. Without
// UFFD_USER_MODE_ONLY: KVM's own accesses to guest RAM are the kernel's.
unique_fd new_uffd() {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK;
  unique_fd uffd(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
  if (uffd || errno != EPERM) return uffd;
  const unique_fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) uffd = unique_fd(::ioctl(device.get(), uffd_ioc_new, flags));
  if (!uffd) errno = EPERM;
  return uffd;
}

result<unique_fd> open_uffd(std::uint64_t features) {
  unique_fd uffd = new_uffd();
  if (!uffd && errno == EPERM) {
    return error{errc::unsupported, EPERM,
                 "Failed to create userfaultfd: run the VMM as root or with CAP_SYS_PTRACE, give its user access to "
                 "/dev/userfaultfd, or set sysctl vm.unprivileged_userfaultfd=1 (and let no seccomp filter forbid it)"};
  }
  if (!uffd) return errno_error("Failed to create userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  if (::ioctl(uffd.get(), UFFDIO_API, &api) != 0) {
    const int saved = errno;
    return error{errc::unsupported, saved, "this kernel lacks a userfaultfd feature"};
  }
  return uffd;
}

result<void> register_regions(int uffd, std::span<const ram_region> regions, std::uint64_t mode) {
  for (const ram_region& region : regions) {
    uffdio_register request{};
    request.range.start = reinterpret_cast<std::uintptr_t>(region.bytes.data());
    request.range.len = region.bytes.size();
    request.mode = mode;
    if (::ioctl(uffd, UFFDIO_REGISTER, &request) != 0) {
      const int saved = errno;
      if (saved == EINVAL && (mode & UFFDIO_REGISTER_MODE_WP) != 0) {
        return error{errc::unsupported, saved,
                     "Failed to register memory address range with the userfaultfd object: guest memory must be a "
                     "memfd, a file on tmpfs, or anonymous"};
      }
      return errno_error("Failed to register memory address range with the userfaultfd object");
    }
  }
  return {};
}

}  // namespace

result<unique_fd> create_missing_uffd(std::span<const ram_region> regions) {
  auto uffd = open_uffd(UFFD_FEATURE_EVENT_REMOVE);
  if (!uffd) return uffd;
  COPPICE_TRY(register_regions(uffd->get(), regions, UFFDIO_REGISTER_MODE_MISSING));
  return uffd;
}

result<unique_fd> create_wp_uffd(std::span<const ram_region> regions) {
  constexpr std::uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  auto uffd = open_uffd(needed | wp_unpopulated);  // untouched pages of anonymous memory can be protected too
  if (!uffd) uffd = open_uffd(needed);             // Linux before 6.4
  if (!uffd) return uffd;
  COPPICE_TRY(register_regions(uffd->get(), regions, UFFDIO_REGISTER_MODE_WP));
  return uffd;
}

std::string describe_regions(std::span<const ram_region> regions) {
  auto all = nlohmann::ordered_json::array();
  for (const ram_region& region : regions) {
    all.push_back({{"base_host_virt_addr", reinterpret_cast<std::uintptr_t>(region.bytes.data())},
                   {"size", region.bytes.size()},
                   {"offset", region.file_offset},
                   {"page_size", page_size},
                   {"page_size_kib", page_size}});  // bytes, for all its name, as Firecracker sends it
  }
  return all.dump();
}

result<unique_fd> send_uffd(const std::filesystem::path& socket, int uffd, std::span<const ram_region> regions) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket.string();
  if (path.size() >= sizeof address.sun_path) {
    return error{errc::invalid_argument, 0, "Failed to connect to UDS Unix stream: the path is too long"};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  unique_fd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!connection) return errno_error("Failed to connect to UDS Unix stream");
  if (::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return errno_error("Failed to connect to UDS Unix stream");
  }
  std::string text = describe_regions(regions);
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof uffd)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof uffd);
  std::memcpy(CMSG_DATA(header), &uffd, sizeof uffd);
  const ssize_t sent = ::sendmsg(connection.get(), &message, MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(text.size())) return errno_error("Failed to send the userfaultfd");
  return connection;
}

}  // namespace coppice::reference
