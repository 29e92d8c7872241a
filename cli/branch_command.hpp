// coppice branch.
#pragma once

#include <string>

#include "cli/command_context.hpp"

namespace coppice {

struct branch_arguments {
  std::string id;
  std::string tag;   // empty: the daemon chooses
  std::string mode;  // empty: the daemon chooses
  bool wait = true;
  bool tag_only = false;   // of what is printed
  std::string trace_file;  // empty: none
};

// Branches, and waits until the snapshot is ready, if that is wanted. Returns the exit code; that of a branch that
// failed is of the kind of its failure. SIGINT and SIGTERM ask the daemon to give the branch up; what became of that is
// said, and the code is 128 and the signal's number. A call to the daemon may still be under way then.
int branch_sandbox(const command_context& context, const branch_arguments& arguments);

}  // namespace coppice
