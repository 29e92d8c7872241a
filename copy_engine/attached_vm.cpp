#include "copy_engine/attached_vm.hpp"

#include <algorithm>
#include <utility>

namespace coppice {

bool attached_vm::is_saved(std::size_t page) const {
  return std::all_of(epochs.begin(), epochs.end(), [page](const auto& epoch) {
    return epoch->phase == epoch_phase::failed ||
           (epoch->phase == epoch_phase::active && !epoch->states.needs_capture(page));
  });
}

bool attached_vm::is_all_needed() const {
  return std::any_of(epochs.begin(), epochs.end(), [](const auto& epoch) {
    return epoch->phase == epoch_phase::prearming || epoch->phase == epoch_phase::prearmed;
  });
}

bool attached_vm::has_prearm() const {
  return std::any_of(epochs.begin(), epochs.end(),
                     [](const auto& epoch) { return epoch->phase == epoch_phase::prearming; });
}

void attached_vm::begin_lifting() {
  lift_offset = 0;
  saved_pages = 0;
}

std::optional<memory_region> attached_vm::next_to_lift() {
  if (!lift_offset || *lift_offset >= memory->size()) return std::nullopt;
  const memory_region piece = piece_at(*lift_offset, slice_pages * page_size);
  const std::size_t end = (piece.file_offset + piece.size) / page_size;
  while (saved_pages < end && is_saved(saved_pages)) ++saved_pages;  // it stays so until an epoch begins
  if (saved_pages < end) return std::nullopt;
  return piece;
}

void attached_vm::end_lifting() {
  lift_offset.reset();
  for (auto& done : std::exchange(when_lifted, {})) done();
}

std::optional<std::size_t> attached_vm::page_of(std::uint64_t address) const noexcept {
  for (const memory_region& region : regions) {
    if (address >= region.host_address && address - region.host_address < region.size) {
      return (region.file_offset + (address - region.host_address)) / page_size;
    }
  }
  return std::nullopt;
}

memory_region attached_vm::piece_at(std::uint64_t offset, std::uint64_t size) const noexcept {
  for (const memory_region& region : regions) {
    if (offset < region.file_offset + region.size) {
      const std::uint64_t begin = std::max(offset, region.file_offset);
      if (begin >= offset + size) return {0, 0, begin};
      return {region.host_address + (begin - region.file_offset),
              std::min(offset + size, region.file_offset + region.size) - begin, begin};
    }
  }
  return {0, 0, memory->size()};
}

std::vector<memory_region> attached_vm::pieces_of(std::vector<std::size_t>& pages) const {
  std::vector<memory_region> pieces;
  std::sort(pages.begin(), pages.end());
  for (std::size_t first = 0; first < pages.size();) {
    std::size_t last = first + 1;
    while (last < pages.size() && pages[last] == pages[last - 1] + 1) ++last;
    for_each_piece(pages[first], pages[first] + (last - first),
                   [&](const memory_region& piece) { pieces.push_back(piece); });
    first = last;
  }
  return pieces;
}

}  // namespace coppice
