// `coppice-bench actors`: what the actors add to a branch's pause.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct actors_options {
  std::uint64_t memory_bytes = 0;
  unsigned branches = 50;
  std::filesystem::path root;
  std::string vmm;
};

// A control plane in this process, with one journal guest. By turns, the same VM is branched by the actors and by a
// plain loop that makes the same calls on the same API channel and the same memory of the copy engine, one after the
// other. Sets environment["vmm"]. Errors: of the daemon.
result<void> run_actors_bench(const actors_options& options, report& to, nlohmann::json& environment);

}  // namespace coppice::bench
