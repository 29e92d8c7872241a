// What this machine does to a thread while all its CPUs are busy, with nothing of Coppice at work.
#pragma once

#include <chrono>

namespace coppice::bench {

struct busy_gap {
  double longest_us = 0;
  bool in_real_time = false;  // nothing else of this machine counts
};

// Keeps every CPU busy for `length`, without a rest: the longest time for which one of the threads stood still. They
// run in real time (SCHED_FIFO) where that is allowed for so long, else at the highest ordinary priority. What is left
// is what the machine's host takes: one that limits a VM's CPU time (CFS bandwidth control) stops its CPUs for the rest
// of a period, the more surely the longer several are busy.
busy_gap measure_busy_gap(std::chrono::nanoseconds length);

}  // namespace coppice::bench
