// `coppice-bench fleet`: the load test. Many VMs, branches all the time.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct fleet_options {
  unsigned sandboxes = 200;
  std::uint64_t memory_bytes = 0;
  double rate = 20;  // branches asked a second
  std::chrono::milliseconds duration{60'000};
  std::chrono::milliseconds rest{100};      // of each guest, between two steps
  unsigned verify_each = 20;                // every so many-th image is verified
  unsigned askers = 16;                     // branches in flight at most; what a daemon allows unless told otherwise
  std::chrono::milliseconds warm_up{2000};  // branches at the same rate before, not counted
  std::chrono::milliseconds idle{10'000};   // how long the daemon's idle CPU use is measured
  std::filesystem::path root;
  std::string vmm;
  copy_limits limits;
};

// The sandboxes come from one base and write a page, rest, write a page. They are branched in turn, at the rate whether
// or not the branches before are ready; a snapshot is deleted as soon as it is ready. Before and after, idle sandboxes
// are paused and resumed by bare API calls, and all are watched while nothing happens. Sets environment["vmm"]. Errors:
// of the daemon, but those of branches are counted.
result<void> run_fleet_bench(const fleet_options& options, report& to, nlohmann::json& environment);

}  // namespace coppice::bench
