// Writes guest RAM to the memory file of a Full or Diff snapshot.
#pragma once

#include <filesystem>

#include "base/result.hpp"
#include "reference_vmm/memory.hpp"

namespace coppice::reference {

// All of RAM; zero pages become holes. What the file held before is gone. The file that the RAM was made from is
// rewritten in place. Durable on return; clears ram.dirty().
// REQUIRES: the guest is paused. Errors: not_found, no_space, io.
result<void> write_full_memory(const std::filesystem::path& path, guest_ram& ram);

// The pages of ram.dirty(), at their places: a new file is sparse, one of the right size is merged into, one of another
// size is emptied first (as Firecracker does). Durable on return; clears ram.dirty() on success only.
// REQUIRES: the guest is paused. Errors: not_found, no_space, io.
result<void> write_dirty_memory(const std::filesystem::path& path, guest_ram& ram);

}  // namespace coppice::reference
