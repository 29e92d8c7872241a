// What can be said of a request for a base snapshot before anything is started.
#pragma once

#include "control_plane/control_plane.hpp"

namespace coppice {

// Tag, sizes, kernel (an ELF64 x86-64 file), initrd and drive. Errors: invalid_argument, not_found, unsupported (a
// writable drive); each names the file and what to do. Blocks on the disk.
result<void> check_boot(const create_snapshot_request& request);

}  // namespace coppice
