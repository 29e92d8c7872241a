// What this machine does to a thread while all its CPUs are busy, with nothing of Coppice running.
#pragma once

#include <vector>

namespace coppice::bench {

// Keeps every CPU busy, 0.8 s at a time, four seconds altogether. For each tenth of a second: the longest time, in
// microseconds, that one of the threads stood still. They run in real time (SCHED_FIFO) where that is allowed, so that
// nothing else of this machine counts. What is left is what its host takes: one that limits a VM's CPU time stops all
// its CPUs for the rest of each period (CFS bandwidth control, 100 ms), but only while several are busy.
std::vector<double> busy_gaps_us();

}  // namespace coppice::bench
