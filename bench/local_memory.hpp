// RAM under write-protection without a VM: a second mapping of a memfd in this process, whose writer is the bench
// itself.
#pragma once

#include <memory>

#include "base/guest_memory.hpp"

namespace coppice::bench {

struct local_memory {
  std::shared_ptr<guest_memory> ram;  // what the engine reads
  mapping guest_view;                 // what a writer writes through: faults where protected
  uffd_handover handover;
};

// `size` bytes, filled with pages that are neither zero nor alike. Errors: unsupported (no userfaultfd), no_space, io.
result<local_memory> make_local_memory(std::uint64_t size);

}  // namespace coppice::bench
