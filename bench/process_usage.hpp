// What a process uses, by /proc.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>

#include "base/result.hpp"

namespace coppice::bench {

// Errors: not_found (no such process), corrupt.
// CPU time of all its threads, in user and kernel mode (/proc/PID/stat, in clock ticks: mostly 10 ms).
result<std::chrono::duration<double>> cpu_time_of(pid_t pid);
// Resident memory of its own (RssAnon): neither files nor shared memory, of which guest RAM is made.
result<std::uint64_t> own_memory_of(pid_t pid);
// Without the kernel's workers for its io_uring: they begin and end as the kernel likes.
result<std::uint64_t> threads_of(pid_t pid);
result<std::uint64_t> open_files_of(pid_t pid);

}  // namespace coppice::bench
