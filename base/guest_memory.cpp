#include "base/guest_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>

namespace coppice {

result<guest_memory> guest_memory::create(const std::string& name, std::uint64_t size) {
  if (size == 0 || size % page_size != 0) {
    return error{errc::invalid_argument, 0,
                 "guest memory of " + std::to_string(size) + " bytes: must be a multiple of 4096"};
  }
  unique_fd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return errno_error("memfd_create " + name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return errno_error("set size of memfd " + name);
  // A VMM that truncated its RAM would turn the daemon's reads into SIGBUS.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return errno_error("seal memfd " + name);
  auto map = mapping::shared(fd.get(), size, PROT_READ | PROT_WRITE);
  if (!map) return std::move(map).error();
  return guest_memory(std::move(fd), std::move(*map));
}

}  // namespace coppice
