// A VM's RAM as the daemon sees it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace coppice {

// One range of guest RAM in the VMM's address space, as the uffd handshake reports it. Multiples of page_size.
struct memory_region {
  std::uint64_t host_address = 0;  // in the VMM's address space: what uffd messages and ioctls speak of
  std::uint64_t size = 0;          // bytes
  std::uint64_t file_offset = 0;   // the region's place in the memory file (memfd, memory.bin)
};

// A userfaultfd handed over by a VMM, with everything that is registered on it.
struct uffd_handover {
  unique_fd uffd;
  std::vector<memory_region> regions;
};

// The memfd that is a guest's RAM (backing "shared"), and the daemon's own mapping of it. Move-only.
// The mapping is shared with a running guest: its bytes change at any time unless write-protected or paused.
class guest_memory {
 public:
  // A sealed-size memfd of `size` bytes (a multiple of page_size), all holes. Errors: no_space, io.
  static result<guest_memory> create(const std::string& name, std::uint64_t size);

  int fd() const noexcept { return fd_.get(); }
  std::uint64_t size() const noexcept { return map_.size(); }
  std::byte* data() const noexcept { return map_.data(); }

 private:
  guest_memory(unique_fd fd, mapping map) : fd_(std::move(fd)), map_(std::move(map)) {}

  unique_fd fd_;
  mapping map_;
};

}  // namespace coppice
