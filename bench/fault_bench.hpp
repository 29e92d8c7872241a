// `coppice-bench fault`: what one write fault costs the guest, and what storms of them do.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct fault_options {
  std::uint64_t memory_bytes = 0;  // the engine gets twice as much bounce memory: no fault may wait for a disk
  unsigned most_writers = 4;
  unsigned rounds = 5;
};

// Writers that touch every page once while a branch's epoch has begun and its copy has not, so that the faults are all
// there is: one writer, in random order and one page after the other, each write timed; then 1 to `most_writers` at
// once, for the rate and, in a storm of its own, for how long each fault takes. The same against a handler that does
// nothing but lift the page. Errors: unsupported (no userfaultfd), io.
result<void> run_fault_bench(const fault_options& options, report& to);

// How long a process waits for a write fault whose handler does nothing but lift the page, in microseconds: one value
// for each page of `memory_bytes`, written in random order after a warm-up. Writer and handler are on a CPU each, if
// there are two: as a vCPU and the fault thread are, and the scheduler leaves both to one CPU now and then, which takes
// a twentieth of the time. Errors: unsupported (no userfaultfd), io.
result<std::vector<double>> time_bare_faults(std::uint64_t memory_bytes);

}  // namespace coppice::bench
