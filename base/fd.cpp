#include "base/fd.hpp"

#include <string>

namespace coppice {

result<mapping> mapping::shared(int fd, std::size_t length, int protection) {
  void* address = ::mmap(nullptr, length, protection, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) return errno_error("mmap of " + std::to_string(length) + " shared bytes");
  return mapping(std::span(static_cast<std::byte*>(address), length));
}

result<mapping> mapping::anonymous(std::size_t length) {
  void* address = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return errno_error("mmap of " + std::to_string(length) + " anonymous bytes");
  return mapping(std::span(static_cast<std::byte*>(address), length));
}

}  // namespace coppice
