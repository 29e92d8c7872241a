#include "metrics/process_figures.hpp"

#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace coppice {
namespace {

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// "RssAnon:     1234 kB" of /proc/self/status (proc(5)).
std::uint64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  std::uint64_t kib = 0;
  for (std::string word; status >> word;) {
    if (word == "RssAnon:" && status >> kib) break;
  }
  return kib * 1024;
}

std::uint64_t count_open_fds() {
  std::error_code failure;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator each("/proc/self/fd", failure), end; !failure && each != end;
       each.increment(failure)) {
    ++count;
  }
  return count > 0 ? count - 1 : 0;  // one of them is the iterator's own
}

// The time of the boot, plus field 22 of /proc/self/stat, ticks since then (proc(5)). The second field, a name in
// parentheses, may hold anything: what follows it is counted from its end.
double start_time() {
  std::ifstream boot("/proc/stat"), self("/proc/self/stat");
  std::string word;
  double booted = 0, ticks = 0;
  while (boot >> word) {
    if (word == "btime" && boot >> booted) break;
  }
  std::string line;
  std::getline(self, line);
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  for (int field = 3; field < 22; ++field) fields >> word;
  return fields >> ticks ? booted + ticks / static_cast<double>(::sysconf(_SC_CLK_TCK)) : 0;
}

}  // namespace

process_figures read_process_figures() {
  rusage used{};
  rlimit files{};
  ::getrusage(RUSAGE_SELF, &used);
  ::getrlimit(RLIMIT_NOFILE, &files);
  return {.started_at_unix = start_time(),
          .cpu_seconds = seconds_of(used.ru_utime) + seconds_of(used.ru_stime),
          .memory_bytes = anonymous_bytes(),
          .open_fds = count_open_fds(),
          .max_fds = files.rlim_cur};
}

}  // namespace coppice
