// `coppice-bench fleet`: the load test. Many VMs, branches all the time.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct fleet_options {
  unsigned instances = 200;
  std::uint64_t memory_bytes = 0;
  double rate = 20;  // branches asked a second
  std::chrono::milliseconds duration{60'000};
  std::chrono::milliseconds rest{100};  // of each guest, between two steps
  unsigned verify_each = 20;            // every so many-th image is verified
  std::filesystem::path root;
  std::string vmm;
};

// The instances come from one base and write a page, rest, write a page. They are branched in turn, at the rate whether
// or not the branches before are ready; a snapshot is deleted as soon as it is ready. Sets environment["vmm"]. Errors:
// of the daemon, but those of branches are counted.
result<void> run_fleet_bench(const fleet_options& options, report& to, nlohmann::json& environment);

}  // namespace coppice::bench
