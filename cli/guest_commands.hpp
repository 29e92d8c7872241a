// The commands that ask what is inside a sandbox: the agent that listens there, or the journal guest. Each returns the
// exit code.
#pragma once

#include <string>
#include <vector>

#include "cli/command_context.hpp"

namespace coppice {

struct exec_arguments {
  std::string id;
  std::vector<std::string> program;  // with its arguments
  unsigned timeout_seconds = 30;
};

// Passes the program's output on. Returns its exit code (exit_code_passed_on()); 125 to 127 where it didn't run.
int exec_in_sandbox(const command_context& context, const exec_arguments& arguments);
// Prints the value of the code. 1 if the code failed, with the reason on `err`.
int eval_in_sandbox(const command_context& context, const std::string& id, const std::string& code);
// Prints what the agent says.
int ping_sandbox(const command_context& context, const std::string& id);
// Prints what the journal guest reports. `reset`: and forgets the longest stall.
int show_journal(const command_context& context, const std::string& id, bool reset);

}  // namespace coppice
