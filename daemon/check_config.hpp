// coppiced --check-config: all that can be found wrong with the settings without starting.
#pragma once

#include <ostream>

#include "daemon/daemon_settings.hpp"

namespace coppice {

// Whether a daemon with these settings could start: listen address, who may connect, tokens, TLS files, allowed paths,
// VMM, root, audit log, sizes. Starts nothing and changes nothing. REQUIRES: settings.vmm is set. Errors:
// invalid_argument, not_found, io.
result<void> check_settings(const daemon_settings& settings);

// The settings in force, each as a line for a file with its origin in a comment.
void print_settings(std::ostream& out, const daemon_settings& settings);

}  // namespace coppice
