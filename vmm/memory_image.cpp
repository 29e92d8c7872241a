#include "vmm/memory_image.hpp"

#include <sys/stat.h>

#include <algorithm>

#include "base/data_extents.hpp"
#include "base/file.hpp"

namespace coppice {
namespace {

constexpr std::uint64_t piece_bytes = 4 * mib;

}  // namespace

result<void> load_image(int image_fd, guest_memory& memory) {
  struct stat status {};
  if (::fstat(image_fd, &status) != 0) return errno_error("size of the memory image");
  if (static_cast<std::uint64_t>(status.st_size) != memory.size()) {
    return error{errc::corrupt, 0,
                 "the memory image has " + std::to_string(status.st_size) + " bytes, the guest " +
                     std::to_string(memory.size())};
  }
  auto extents = data_extents(image_fd, memory.size());
  if (!extents) return std::move(extents).error();
  for (const auto& data : *extents) {
    for (std::uint64_t done = 0; done < data.size;) {
      const auto size = std::min(piece_bytes, data.size - done);
      const auto offset = data.offset + done;
      COPPICE_TRY(read_all_at(image_fd, {memory.data() + offset, size}, offset));
      done += size;
    }
  }
  return {};
}

}  // namespace coppice
