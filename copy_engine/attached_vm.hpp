// One VM's RAM under the engine's protection, and which of it still has to be protected.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "copy_engine/bounce_pool.hpp"
#include "copy_engine/epoch.hpp"
#include "copy_engine/fault_around.hpp"
#include "copy_engine/page_protection.hpp"

namespace coppice {

// A fault that waits for a bounce buffer.
struct deferred_fault {
  std::size_t page = 0;
  engine_clock::time_point since;
};

// Attached from protected_memory's begin to its end, then detached. Fault thread only, but for `memory` and `bounce`.
struct attached_vm {
  std::shared_ptr<guest_memory> memory;
  std::shared_ptr<const page_protection> protection;  // none once detached; it ends when nobody uses it any more
  std::vector<memory_region> regions;                 // by file offset
  std::vector<std::shared_ptr<memory_epoch>> epochs;  // from the pre-arm until they are closed
  bounce_share bounce;
  fault_around around;
  std::deque<deferred_fault> deferred_faults;  // oldest first
  // Bytes of RAM lifted so far, behind the copies; nullopt: nothing is protected, or an epoch needs all of it.
  std::optional<std::size_t> lift_offset;
  std::size_t saved_pages = 0;                     // RAM's first, of which that is known: no epoch needs them any more
  std::vector<std::function<void()>> when_lifted;  // called once all is (or need not be any more)

  // Whether no epoch needs the page to be protected: each has begun and copied or captured it, or has failed. One that
  // is pre-arming or pre-armed needs every page: it must hear of each write.
  bool is_saved(std::size_t page) const;
  bool is_all_needed() const;  // by an epoch that is pre-arming or pre-armed
  bool has_prearm() const;     // one is under way

  // Pages that epochs need no more are to be lifted from now on, from RAM's first on.
  void begin_lifting();
  // The next slice of RAM of which no epoch needs any page any more; nullopt: there is none yet.
  std::optional<memory_region> next_to_lift();
  void end_lifting();

  // Page number of an address that a uffd message names; nullopt if no region holds it.
  std::optional<std::size_t> page_of(std::uint64_t address) const noexcept;
  // The part of [offset, offset + size) of RAM that lies in one region, as the VMM addresses it; size 0 past the end.
  memory_region piece_at(std::uint64_t offset, std::uint64_t size) const noexcept;
  // Sorts the pages. Runs of neighbours are one piece, or more where they cross from region to region.
  std::vector<memory_region> pieces_of(std::vector<std::size_t>& pages) const;

  // Hands pages [first, end) to `use`, piece by piece: more than one where they cross from region to region.
  template <class Use>
  void for_each_piece(std::size_t first, std::size_t end, Use use) const {
    for (std::uint64_t offset = first * page_size; offset < end * page_size;) {
      const memory_region piece = piece_at(offset, end * page_size - offset);
      use(piece);
      offset = piece.file_offset + piece.size;
    }
  }
};

// All of them, by uffd.
using attached_vms = std::map<int, std::shared_ptr<attached_vm>>;

}  // namespace coppice
