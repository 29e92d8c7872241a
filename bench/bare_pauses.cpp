#include "bench/bare_pauses.hpp"

#include <unistd.h>

#include "bench/engine_run.hpp"

namespace coppice::bench {

result<void> bare_pauses::measure(plain_vmm& vmm) {
  const temporary_file vmstate("/dev/shm/coppice-bench-" + std::to_string(::getpid()) + "-vmstate");
  const auto times = time_bare_pause(vmm, vmstate.path());
  if (!times) return times.error();
  pause.push_back(times->pause_us);
  snapshot.push_back(times->snapshot_us);
  resume.push_back(times->resume_us);
  sum.push_back(times->sum_us());
  return {};
}

void bare_pauses::add_to(report& to, const std::string& cell, const std::string& name, const std::string& note) const {
  to.add({cell, name + "_sum_us", better::lower_baseline, sum, std::nullopt, note});
  to.add({cell, name + "_pause_us", better::lower_baseline, pause});
  to.add({cell, name + "_snapshot_us", better::lower_baseline, snapshot});
  to.add({cell, name + "_resume_us", better::lower_baseline, resume});
}

}  // namespace coppice::bench
