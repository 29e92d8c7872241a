// What the demo measured, as a table and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

namespace coppice {

// One live branch of the parent.
struct branch_figures {
  std::uint64_t pause_us = 0;
  std::uint64_t snapshot_us = 0;
  std::uint64_t rearm_us = 0;
  std::uint64_t resume_us = 0;
  std::uint64_t total_us = 0;
  std::uint64_t stall_us = 0;  // the longest that the guest saw, from before the branch to its end
  std::uint64_t bulk_pages = 0;
  std::uint64_t captured_pages = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t hole_pages = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t copy_us = 0;
};

struct demo_results {
  std::string vmm;                  // "coppice-vmm 0.1.0"
  std::uint64_t memory_bytes = 0;   // of the guest
  std::uint64_t idle_stall_us = 0;  // the parent's longest stall while nothing was branched
  std::vector<branch_figures> branches;
  std::uint64_t images = 0;         // verified: the branches, and those of the children
  std::uint64_t children = 0;       // run and checked
  std::uint64_t checked_pages = 0;  // by the oracle, all images added up
  std::uint64_t bad_pages = 0;
  std::uint64_t gaps = 0;  // restores after which memory and registers disagreed
  double seconds = 0;
  std::string failure;  // why it did not end well; empty if it did
};

// The figures of one answer of POST /branch.
branch_figures figures_of(const nlohmann::json& branch);

nlohmann::json to_json(const demo_results& results);
void print_results(std::ostream& out, const demo_results& results);

}  // namespace coppice
