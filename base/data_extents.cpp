#include "base/data_extents.hpp"

#include <unistd.h>

#include <algorithm>

#include "base/units.hpp"

namespace coppice {

result<std::vector<extent>> data_extents(int fd, std::uint64_t size) {
  std::vector<extent> extents;
  std::uint64_t position = 0;
  while (position < size) {
    const off_t data = ::lseek(fd, static_cast<off_t>(position), SEEK_DATA);
    if (data < 0) {
      if (errno == ENXIO) break;  // nothing but a hole up to the end
      return errno_error("seek data");
    }
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return errno_error("seek hole");
    const std::uint64_t begin = std::max(position, static_cast<std::uint64_t>(data) / page_size * page_size);
    const std::uint64_t end =
        std::min(size, (static_cast<std::uint64_t>(hole) + page_size - 1) / page_size * page_size);
    if (begin >= size) break;
    if (!extents.empty() && extents.back().offset + extents.back().size == begin) {
      extents.back().size = end - extents.back().offset;
    } else {
      extents.push_back({begin, end - begin});
    }
    position = end;
  }
  return extents;
}

}  // namespace coppice
