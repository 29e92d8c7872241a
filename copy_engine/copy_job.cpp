#include "copy_engine/copy_job.hpp"

namespace coppice {

void copy_job::skip_holes() {
  while (next_extent < extents.size() &&
         next_page * page_size >= extents[next_extent].offset + extents[next_extent].size) {
    ++next_extent;
  }
  const std::size_t data =
      next_extent < extents.size() ? extents[next_extent].offset / page_size : branch->states.size();
  std::size_t skipped = 0;
  for (; next_page < data; ++next_page) {
    if (branch->states.skip(next_page)) ++skipped;
  }
  summary.hole_pages += skipped;
  settle_pages(skipped);
}

}  // namespace coppice
