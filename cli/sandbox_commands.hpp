// The commands of `coppice sandbox`. Each returns the exit code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/command_context.hpp"

namespace coppice {

struct sandbox_create_arguments {
  std::string tag;
  unsigned n = 1;
  bool network_namespaces = false;
  std::uint64_t memory_limit_mib = 0;  // none
  bool ids_only = false;               // of what is printed
};

int create_sandboxes(const command_context& context, const sandbox_create_arguments& arguments);
int list_sandboxes(const command_context& context);
int list_sandbox_ids(const command_context& context);  // a line each
int show_sandbox(const command_context& context, const std::string& id);
int remove_sandboxes(const command_context& context, const std::vector<std::string>& ids);

}  // namespace coppice
