#include "bench/branch_bench.hpp"

#include <algorithm>
#include <iostream>

#include "base/units.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/branch_cell.hpp"
#include "bench/fault_bench.hpp"
#include "bench/parsing.hpp"
#include "bench/statistics.hpp"

namespace coppice::bench {
namespace {

constexpr std::uint64_t bare_fault_memory = 16 * mib;

// All modes of one guest, one after the other.
result<void> run_guest(bench_daemon& daemon, const branch_options& options, const guest_spec& spec,
                       double bare_fault_us, report& to) {
  COPPICE_TRY(daemon.make_base("base", spec));
  auto ids = daemon.start_sandboxes("base", 1);
  if (!ids) return std::move(ids).error();
  if (auto filled = daemon.wait_until_filled(ids->front(), spec.working_set_bytes);
      !filled && filled.error().code != errc::unsupported)
    return filled;
  for (const branch_mode mode : options.modes) {
    std::cerr << short_size(spec.memory_bytes) << " RAM, " << short_size(spec.working_set_bytes) << " working set, "
              << spec.pattern << ", " << to_string(mode) << ": " << options.branches << " branches" << std::endl;
    branch_cell cell(daemon, spec, ids->front(), std::string(to_string(mode)), bare_fault_us);
    COPPICE_TRY(cell.run(options.branches));
    cell.add_to(to);
  }
  COPPICE_TRY(daemon.remove_sandbox(ids->front()));
  return daemon.remove_snapshot("base");
}

// Before there is a guest that takes CPU time. 0 where nothing could be measured.
double measure_bare_fault(report& to) {
  auto faults = time_bare_faults(bare_fault_memory);
  if (!faults) {
    std::cerr << "no bare fault is measured: " << faults.error().message() << std::endl;
    return 0;
  }
  const double median = summarize(*faults).median;
  to.add({"a process", "bare_fault_us", better::lower_baseline, *std::move(faults), std::nullopt,
          "a write fault without a VM, whose handler only lifts the page"});
  return median;
}

}  // namespace

result<void> run_branch_bench(const branch_options& options, report& to, nlohmann::json& environment) {
  auto daemon = bench_daemon::start(options.root, options.vmm, options.limits);
  if (!daemon) return std::move(daemon).error();
  environment["vmm"] = (*daemon)->vmm();
  const bool some_live = std::ranges::find(options.modes, branch_mode::live) != options.modes.end();
  const double bare_fault_us = some_live ? measure_bare_fault(to) : 0;
  for (const std::uint64_t memory : options.memory_bytes) {
    std::vector<std::uint64_t> working_sets;
    for (const std::uint64_t wanted : options.working_set_bytes) {
      const std::uint64_t fits = std::min(wanted, largest_working_set(memory));
      if (fits > 0 && std::ranges::find(working_sets, fits) == working_sets.end()) working_sets.push_back(fits);
    }
    for (const std::uint64_t working_set : working_sets) {
      for (const std::string& pattern : options.patterns)
        COPPICE_TRY(
            run_guest(**daemon, options, {memory, working_set, pattern, 0, options.fill_memory}, bare_fault_us, to));
    }
  }
  return {};
}

}  // namespace coppice::bench
