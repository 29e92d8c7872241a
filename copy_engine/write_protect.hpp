// UFFDIO_WRITEPROTECT (Documentation/admin-guide/mm/userfaultfd.rst).
#pragma once

#include <cstdint>

#include "base/result.hpp"

namespace coppice {

// Protects or lifts [address, address + size) of the process that created `uffd`; lifting wakes who waits for a write
// there. Errors: unavailable (that process is gone), io.
result<void> set_write_protection(int uffd, std::uint64_t address, std::uint64_t size, bool protect);

}  // namespace coppice
