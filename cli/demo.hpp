// The main job from one command, with a daemon and a root of its own.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

namespace coppice {

struct demo_options {
  std::string json_file;  // empty: none
  bool json = false;      // print JSON instead of the table, failures too
  std::string root;       // empty: $TMPDIR if that is a disk, else /var/tmp
  std::string vmm;        // empty: the daemon's default
  std::string kernel;     // empty: the journal.elf that is installed or built with this program
  std::string boot_args = "journal.threshold_us=200";  // stalls from 0.2 ms on are seen
  unsigned branches = 10;
  unsigned children = 4;
  std::uint64_t memory_bytes = 256ULL << 20;
};

// Boots the journal guest, branches it live while it writes, starts children, and checks every page of every image.
// Prints progress to `err`, the results to `out`; leaves nothing behind. Returns an exit code: exit_bad_data if a page
// is wrong. On SIGINT and SIGTERM it cleans up and fails.
int run_demo(const demo_options& options, std::ostream& out, std::ostream& err);

}  // namespace coppice
