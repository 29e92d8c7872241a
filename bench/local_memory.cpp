#include "bench/local_memory.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace coppice::bench {

result<local_memory> make_local_memory(std::uint64_t size) {
  auto ram = guest_memory::create("coppice-bench", size);
  if (!ram) return std::move(ram).error();
  auto view = mapping::shared(ram->fd(), size, PROT_READ | PROT_WRITE);
  if (!view) return std::move(view).error();
  auto* const words = reinterpret_cast<std::uint64_t*>(view->data());
  for (std::uint64_t i = 0; i < size / 8; ++i) words[i] = i * 0x9e3779b97f4a7c15ULL + 1;
  unique_fd uffd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  if (!uffd || ::ioctl(uffd.get(), UFFDIO_API, &api) != 0)
    return errno_error("userfaultfd with write-protection of shared memory");
  uffdio_register registration{};
  registration.range.start = reinterpret_cast<std::uint64_t>(view->data());
  registration.range.len = size;
  registration.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(uffd.get(), UFFDIO_REGISTER, &registration) != 0)
    return errno_error("register guest memory with userfaultfd");
  local_memory made;
  made.handover.uffd = std::move(uffd);
  made.handover.regions = {{registration.range.start, size, 0}};
  made.ram = std::make_shared<guest_memory>(std::move(*ram));
  made.guest_view = std::move(*view);
  return made;
}

}  // namespace coppice::bench
