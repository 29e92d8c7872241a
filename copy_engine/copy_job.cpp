#include "copy_engine/copy_job.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace coppice {
namespace {

// A hot set that is copied so soon that little is won by saving it ahead.
constexpr std::size_t few_blocks = 32;

}  // namespace

void copy_job::look_at_faults(engine_clock::time_point now) noexcept {
  const std::uint64_t faults = epoch->capturing_faults.load(std::memory_order_relaxed);
  if (now >= faults_count_from_) pressure_ = std::min(pressure_ + (faults - faults_seen_), most_pressure);
  faults_seen_ = faults;
}

void copy_job::put_hot_blocks_first(std::chrono::milliseconds hot_set_time) {
  const auto& touches = epoch->touches_of_block;
  for (std::size_t block = 0; block < touches.size(); ++block) {
    if (touches[block] > 0) hot_blocks.push_back(block);
  }
  std::sort(hot_blocks.begin(), hot_blocks.end(),
            [&](std::size_t left, std::size_t right) { return touches[left] < touches[right]; });
  if (hot_blocks.size() <= few_blocks) {
    faults_count_from_ = begin + hot_set_time;
  } else {
    pressure_ = pressure_to_hurry;  // it writes everywhere: the first faults are enough
  }
}

result<void> copy_job::look_for_holes() {
  struct stat of {};
  if (::fstat(epoch->memory->fd(), &of) != 0) return errno_error("read the size of guest RAM");
  has_holes = static_cast<std::uint64_t>(of.st_blocks) * 512 < epoch->memory->size();
  return {};
}

bool copy_job::is_in_memory(std::size_t page) noexcept {
  const std::size_t block = page / block_pages;
  if (block != known_block_) {
    const std::size_t pages = std::min(block_pages, epoch->states.size() - block * block_pages);
    std::byte* const first = epoch->memory->data() + block * block_pages * page_size;
    if (::mincore(first, pages * page_size, in_memory_of_block_.data()) != 0) in_memory_of_block_.fill(0);
    known_block_ = block;
  }
  return (in_memory_of_block_[page % block_pages] & 1) != 0;
}

result<std::size_t> copy_job::next_data(std::size_t page) {
  if (!has_holes || page >= epoch->states.size() || is_in_memory(page)) return page;
  const off_t data = ::lseek(epoch->memory->fd(), static_cast<off_t>(page * page_size), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return epoch->states.size();  // nothing but a hole up to the end
  if (data < 0) return errno_error("seek data of guest RAM");
  return static_cast<std::size_t>(data) / page_size;
}

void copy_job::skip_hole(std::size_t first, std::size_t end) noexcept {
  std::size_t skipped = 0;
  for (std::size_t page = first; page < end; ++page) {
    if (epoch->states.skip(page)) ++skipped;
  }
  summary.hole_pages += skipped;
  settle_pages(skipped);
}

}  // namespace coppice
