// coppice top: a live view of a daemon.
#pragma once

#include <chrono>

#include "cli/command_context.hpp"

namespace coppice {

struct top_options {
  double interval_seconds = 2;
  bool once = false;  // print one frame and end, also on a terminal
};

// Shows frames until q, Ctrl-C or a signal that ends; one frame where there is no terminal or JSON is wanted. Returns
// the exit code.
int run_top(const command_context& context, const top_options& options);

// The view on the terminal that is open as `input` and `output`; restores it at the end. A daemon that stops answering
// is said and asked again. Used by run_top(), and by its test with a pseudo-terminal.
int show_top_on_terminal(const command_context& context, std::chrono::milliseconds interval, int input, int output);

}  // namespace coppice
