// The load of `coppice-bench fleet`: branches asked at a fixed rate.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bench/bench_daemon.hpp"
#include "bench/fleet_bench.hpp"

namespace coppice::bench {

// What became of the branches asked so far.
struct load_results {
  unsigned asked = 0, done = 0, failed = 0;
  std::string first_failure;
  // Of those done. The stall is the guest's longest from the request until the snapshot was ready.
  std::vector<double> pause_us, stall_us, ready_ms;
  std::vector<double> late_ms;  // asked so much after its time: all askers were busy
  unsigned verified = 0;
  std::uint64_t bad_pages = 0;
};

// options.askers askers, each of which asks for the next branch when its time has come, and waits until it is ready: so
// there are at most as many in flight. Used once.
class fleet_load {
 public:
  // The snapshots are called `name`-0 and so on. `daemon` and `sandboxes` outlive it.
  fleet_load(const bench_daemon& daemon, fleet_options options, const std::vector<std::string>& sandboxes,
             std::string name);
  // Returns when the last branch has ended. Errors: as journal_view::open.
  result<load_results> run();

 private:
  void ask_until_over();
  void branch(unsigned number);
  // Returns the bad pages of the image; nothing if it was not looked at.
  result<std::optional<std::uint64_t>> verify_and_delete(unsigned number, const std::string& tag);
  void note_failure(const error& why);

  const bench_daemon& daemon_;
  const fleet_options options_;
  const std::vector<std::string>& sandboxes_;
  const std::string name_;
  std::vector<journal_view> views_;  // one a sandbox, or none at all
  std::chrono::steady_clock::time_point begin_;
  std::atomic<unsigned> next_{0};
  std::mutex mutex_;
  load_results results_;
};

}  // namespace coppice::bench
