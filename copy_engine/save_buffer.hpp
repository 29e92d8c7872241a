// Memory for pages that are saved ahead of their write.
#pragma once

#include <memory>

#include "base/units.hpp"
#include "copy_engine/attached_vm.hpp"

namespace coppice {

// Pages one after the other, so that a run of them is one write. Its memory counts as bounce memory of the VM. Used by
// the copy thread only.
class save_buffer {
 public:
  // One huge page: where the system has none at hand, making 512 small ones takes twice the time.
  static constexpr std::size_t pages = 2 * mib / page_size;

  // nullptr: the VM has its share of the bounce memory (bounce_pool::reserve), or the system has none.
  static std::shared_ptr<save_buffer> allocate(bounce_pool& pool, std::shared_ptr<attached_vm> vm,
                                               std::size_t to_spare);
  ~save_buffer();
  save_buffer(const save_buffer&) = delete;
  save_buffer& operator=(const save_buffer&) = delete;

  std::size_t room() const noexcept { return pages - filled_; }  // in pages
  // Returns the copy. REQUIRES: room() > 0
  const std::byte* append(const std::byte* page) noexcept;
  void drop_last() noexcept { --filled_; }

 private:
  save_buffer(bounce_pool& pool, std::shared_ptr<attached_vm> vm, mapping memory)
      : pool_(pool), vm_(std::move(vm)), memory_(std::move(memory)) {}

  bounce_pool& pool_;
  const std::shared_ptr<attached_vm> vm_;
  mapping memory_;
  std::size_t filled_ = 0;
};

}  // namespace coppice
