// coppice version.
#pragma once

#include "cli/command_context.hpp"

namespace coppice {

// Prints what this program and the daemon are, and what its VMM can do. Without a daemon it tells the program's version
// all the same, and fails.
int show_version(const command_context& context);

}  // namespace coppice
