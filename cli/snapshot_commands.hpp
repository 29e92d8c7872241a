// The commands of `coppice snapshot`. Each returns the exit code.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_context.hpp"

namespace coppice {

struct snapshot_create_arguments {
  std::string tag;
  std::string kernel;
  std::string initrd;  // empty: none
  std::string rootfs;  // empty: none
  std::string boot_args;
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 1;
  bool network = false;
  std::optional<std::uint64_t> boot_time_ms;  // the server's default
  bool tag_only = false;                      // of what is printed
};

// Waits as long as the daemon does.
int create_snapshot(const command_context& context, const snapshot_create_arguments& arguments);
int list_snapshots(const command_context& context);
int list_snapshot_tags(const command_context& context);  // a line each
int show_snapshot(const command_context& context, const std::string& tag);
int verify_snapshot(const command_context& context, const std::string& tag);
// `cascade`: with all that descend from them.
int remove_snapshots(const command_context& context, const std::vector<std::string>& tags, bool cascade);

// Prints the snapshot that was made, or its tag only, or reports why there is none.
int finish_snapshot(const command_context& context, const result<nlohmann::json>& answer, bool tag_only);

}  // namespace coppice
