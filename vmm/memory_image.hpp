// Guest RAM from an image file.
#pragma once

#include "base/guest_memory.hpp"
#include "base/result.hpp"

namespace coppice {

// Fills `memory` with the image at `image_fd`, which must have its size; holes and zero pages of the image are left
// holes.
// REQUIRES: `memory` is fresh (all holes), and nobody runs on it. Blocks: run it off the event loop.
// Errors: corrupt (another size), no_space, io.
result<void> load_image(int image_fd, guest_memory& memory);

}  // namespace coppice
