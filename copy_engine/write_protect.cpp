#include "copy_engine/write_protect.hpp"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

namespace coppice {

result<void> set_write_protection(int uffd, std::uint64_t address, std::uint64_t size, bool protect) {
  uffdio_writeprotect request{};
  request.range.start = address;
  request.range.len = size;
  request.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  // EAGAIN: the address space is changing at the moment; the call has had no effect and may be repeated.
  while (::ioctl(uffd, UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno == ESRCH) return error{errc::unavailable, ESRCH, "the VM's process is gone"};
    if (errno != EAGAIN && errno != EINTR)
      return errno_error(protect ? "write-protect guest memory" : "lift write protection");
  }
  return {};
}

}  // namespace coppice
