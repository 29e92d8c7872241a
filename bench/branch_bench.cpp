#include "bench/branch_bench.hpp"

#include <algorithm>
#include <iostream>

#include "bench/bench_daemon.hpp"
#include "bench/branch_cell.hpp"
#include "bench/parsing.hpp"

namespace coppice::bench {
namespace {

// All modes of one guest, one after the other.
result<void> run_guest(bench_daemon& daemon, const branch_options& options, const guest_spec& spec, report& to) {
  COPPICE_TRY(daemon.make_base("base", spec));
  auto ids = daemon.start_sandboxes("base", 1);
  if (!ids) return std::move(ids).error();
  if (auto filled = daemon.wait_until_filled(ids->front(), spec.working_set_bytes);
      !filled && filled.error().code != errc::unsupported)
    return filled;
  for (const branch_mode mode : options.modes) {
    std::cerr << short_size(spec.memory_bytes) << " RAM, " << short_size(spec.working_set_bytes) << " working set, "
              << spec.pattern << ", " << to_string(mode) << ": " << options.branches << " branches" << std::endl;
    branch_cell cell(daemon, spec, ids->front(), std::string(to_string(mode)));
    COPPICE_TRY(cell.run(options.branches));
    cell.add_to(to);
  }
  COPPICE_TRY(daemon.remove_sandbox(ids->front()));
  return daemon.remove_snapshot("base");
}

}  // namespace

result<void> run_branch_bench(const branch_options& options, report& to, nlohmann::json& environment) {
  auto daemon = bench_daemon::start(options.root, options.vmm);
  if (!daemon) return std::move(daemon).error();
  environment["vmm"] = (*daemon)->vmm();
  for (const std::uint64_t memory : options.memory_bytes) {
    std::vector<std::uint64_t> working_sets;
    for (const std::uint64_t wanted : options.working_set_bytes) {
      const std::uint64_t fits = std::min(wanted, largest_working_set(memory));
      if (fits > 0 && std::ranges::find(working_sets, fits) == working_sets.end()) working_sets.push_back(fits);
    }
    for (const std::uint64_t working_set : working_sets) {
      for (const std::string& pattern : options.patterns)
        COPPICE_TRY(run_guest(**daemon, options, {memory, working_set, pattern, 0, options.fill_memory}, to));
    }
  }
  return {};
}

}  // namespace coppice::bench
