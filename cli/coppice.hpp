// The command line of `coppice`, without the process around it.
#pragma once

#include <ostream>

namespace coppice {

// Runs one command; returns the exit code (exit_codes.hpp). Never throws.
int run_coppice(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace coppice
