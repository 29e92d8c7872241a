// The parts of a sparse file that hold data.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"

namespace coppice {

struct extent {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

// The data extents of the file's first `size` bytes, widened to whole pages, ascending and disjoint
// (SEEK_DATA/SEEK_HOLE; works for files and memfds, moves the file position). Errors: io.
result<std::vector<extent>> data_extents(int fd, std::uint64_t size);

}  // namespace coppice
