#include "copy_engine/save_buffer.hpp"

#include <sys/mman.h>

#include <cstring>

namespace coppice {

std::shared_ptr<save_buffer> save_buffer::allocate(bounce_pool& pool, std::shared_ptr<attached_vm> vm,
                                                   std::size_t to_spare) {
  if (!pool.reserve(vm->bounce, pages, to_spare)) return nullptr;
  auto memory = mapping::anonymous(pages * page_size);
  if (!memory) {
    pool.unreserve(vm->bounce, pages);
    return nullptr;
  }
  ::madvise(memory->data(), memory->size(), MADV_HUGEPAGE);  // aligned to one by Linux 6.7 and later
  return std::shared_ptr<save_buffer>(new save_buffer(pool, std::move(vm), std::move(*memory)));
}

save_buffer::~save_buffer() {
  memory_ = mapping();  // given back before it is counted as free
  pool_.unreserve(vm_->bounce, pages);
}

const std::byte* save_buffer::append(const std::byte* page) noexcept {
  std::byte* const copy = memory_.data() + filled_++ * page_size;
  std::memcpy(copy, page, page_size);
  return copy;
}

}  // namespace coppice
