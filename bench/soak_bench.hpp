// `coppice-bench soak`: live branches for long, over VMs of several sizes and write patterns, several of one VM at
// once.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct soak_options {
  unsigned branches = 1000;
  unsigned overlap = 4;  // branches of one VM that are under way at once
  std::filesystem::path root;
  std::string vmm;
  copy_limits limits;
};

// Every image is verified, then deleted. Tells what the daemon holds (memory, threads, file descriptors) after the
// first tenth of the branches and after the last. Sets environment["vmm"]. Errors: of the daemon, but those of branches
// are counted.
result<void> run_soak_bench(const soak_options& options, report& to, nlohmann::json& environment);

}  // namespace coppice::bench
