// The commands of `coppice` that talk to a running coppiced. Each returns the exit code.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "client/client.hpp"

namespace coppice {

// Where a command talks to and prints to.
struct command_context {
  api_client client;
  bool json = false;      // print the server's JSON instead of a table
  bool progress = false;  // show progress on `err`: it is a terminal
  std::ostream& out;
  std::ostream& err;
};

struct snapshot_create_arguments {
  std::string tag;
  std::string kernel;
  std::string rootfs;  // empty: none
  std::string boot_args;
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 1;
  bool network = false;
  std::optional<std::uint64_t> boot_time_ms;  // the server's default
};

struct sandbox_create_arguments {
  std::string tag;
  unsigned n = 1;
  bool network_namespaces = false;
  std::uint64_t memory_limit_mib = 0;  // none
};

struct exec_arguments {
  std::string id;
  std::vector<std::string> program;  // with its arguments
  unsigned timeout_seconds = 30;
};

struct branch_arguments {
  std::string id;
  std::string tag;  // empty: the daemon chooses
  std::string mode = "live";
  bool wait = true;
  std::string trace_file;  // empty: none
};

int list_snapshots(const command_context& context);
int list_snapshot_tags(const command_context& context);  // a line each
int show_snapshot(const command_context& context, const std::string& tag);
int create_snapshot(const command_context& context, const snapshot_create_arguments& arguments);
int verify_snapshot(const command_context& context, const std::string& tag);
int remove_snapshot(const command_context& context, const std::string& tag);
int list_sandboxes(const command_context& context);
int list_sandbox_ids(const command_context& context);  // a line each
int show_sandbox(const command_context& context, const std::string& id);
int create_sandboxes(const command_context& context, const sandbox_create_arguments& arguments);
int remove_sandbox(const command_context& context, const std::string& id);
// Passes the program's output on. Returns its exit code.
int exec_in_sandbox(const command_context& context, const exec_arguments& arguments);
int branch_sandbox(const command_context& context, const branch_arguments& arguments);

// Prints "coppice: <message>" and returns the exit code of the failure's kind.
int report_failure(std::ostream& err, const error& failure);

}  // namespace coppice
