// The baseline of a pause: the three API calls of a plain loop, made again and again.
#pragma once

#include <string>
#include <vector>

#include "bench/plain_vmm.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

// In microseconds, one value a time.
struct bare_pauses {
  std::vector<double> pause, snapshot, resume, sum;

  // Makes the calls once; the vmstate goes to tmpfs and is removed. Errors: as time_bare_pause.
  result<void> measure(plain_vmm& vmm);
  // As `name`_sum_us (with `note`), `name`_pause_us, `name`_snapshot_us, `name`_resume_us.
  void add_to(report& to, const std::string& cell, const std::string& name, const std::string& note) const;
};

}  // namespace coppice::bench
