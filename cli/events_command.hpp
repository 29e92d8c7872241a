// coppice events.
#pragma once

#include <string>

#include "cli/command_context.hpp"

namespace coppice {

struct events_arguments {
  std::string since;  // id of the event after which to begin; empty: with what happens from now on
};

// Prints the daemon's events as they happen, a line each, until a signal ends the program. Returns when the daemon ends
// the stream, which is a failure.
int follow_events(const command_context& context, const events_arguments& arguments);

}  // namespace coppice
