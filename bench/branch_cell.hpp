// One cell of `coppice-bench branch`: one guest and one mode, branched over and over.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/bare_pauses.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/raw_copy.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

// REQUIRES: the daemon has one sandbox, whose guest has written its working set.
class branch_cell {
 public:
  // `bare_fault_us`: what a write fault takes here without a VM and without a copy; 0 if that isn't known.
  branch_cell(bench_daemon& daemon, guest_spec spec, std::string sandbox, std::string mode, double bare_fault_us)
      : daemon_(daemon),
        spec_(std::move(spec)),
        sandbox_(std::move(sandbox)),
        mode_(std::move(mode)),
        bare_fault_us_(bare_fault_us) {}

  // The warm-up and `branches` branches.
  result<void> run(unsigned branches);
  void add_to(report& to) const;

 private:
  using clock = journal_monitor::clock;
  struct one_branch {
    clock::time_point asked, answered, ready;
    nlohmann::json info;
  };
  // What the guest sees while a plain loop writes its RAM.
  struct plain_copy {
    std::vector<double> stall_us, to_idle_speed;
  };
  // In microseconds unless the name says otherwise; at most one value a branch.
  struct measured {
    std::vector<double> pause, snapshot, rearm, resume, total;
    // Of a guest that runs freely: after a rest, and once more at once; right after all its RAM was write-protected.
    bare_pauses bare, repeated_bare, armed_bare;
    std::vector<double> stall, idle_stall, idle_steps_per_s, copy_steps_per_s, speed_ratio, speed_at_bare_faults;
    std::vector<double> faults, faults_per_dirtied, longest_fault;
    std::vector<double> bulk_mib, captured_mib, zero_mib, hole_mib, copy_gb_per_s, prearm, copy, ready_ms;
    plain_copy copied_plainly, digested_plainly;  // without and with page digests
    double unseen_stalls = 0;
  };

  result<void> measure(unsigned number);
  // The three calls of a plain loop.
  result<void> measure_bare();
  // The same after a pre-arm from outside.
  result<void> measure_armed_bare();
  // What the guest sees of the same bytes being written without Coppice: a plain loop, O_DIRECT, and nothing protected.
  // After an idle window, as a branch comes after one.
  result<void> measure_plain_copy(beside what, plain_copy& into);
  result<journal_monitor::window> measure_idle();
  void note_stall(const journal_monitor::window& seen, std::vector<double>& into);
  // Answered at the resume, and polled until ready; or answered when ready.
  result<one_branch> branch(const std::string& tag, bool wait);
  void note_info(const nlohmann::json& info);
  result<void> note_copy_window(const one_branch& which, double idle_steps_per_s);

  void add_pause(report& to, const std::string& cell) const;
  void add_pause_to_bare(report& to, const std::string& cell) const;
  void add_stall(report& to, const std::string& cell) const;
  void add_copy(report& to, const std::string& cell) const;

  bench_daemon& daemon_;
  const guest_spec spec_;
  const std::string sandbox_;
  const std::string mode_;
  const double bare_fault_us_;
  std::unique_ptr<plain_vmm> vmm_;
  std::unique_ptr<journal_monitor> monitor_;
  std::optional<guest_protection> protection_;
  bool direct_io_works_ = true;  // the file system takes O_DIRECT
  clock::duration last_branch_{};
  measured figures_;
  double bad_pages_ = 0;  // the warm-up's included
};

}  // namespace coppice::bench
