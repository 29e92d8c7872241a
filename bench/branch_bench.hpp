// `coppice-bench branch`: what a branch costs the VM that is branched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/branch_stats.hpp"
#include "base/result.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct branch_options {
  std::vector<std::uint64_t> memory_bytes;
  std::vector<std::uint64_t> working_set_bytes;  // as much of it as fits into the memory
  std::vector<std::string> patterns;
  std::vector<branch_mode> modes;
  unsigned branches = 30;  // of each cell, and one more as the warm-up
  bool fill_memory = true;
  std::filesystem::path root;
  std::string vmm;
  copy_limits limits;
};

// One cell for each combination. A cell is one guest, branched over and over; between two branches the same guest is
// paused and resumed by bare API calls, and watched while nothing happens. Every image is verified. Sets
// environment["vmm"]. Errors: of the daemon.
result<void> run_branch_bench(const branch_options& options, report& to, nlohmann::json& environment);

}  // namespace coppice::bench
