#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "doctor/doctor_checks.hpp"
#include "vmm/memory_cgroup.hpp"

namespace coppice::doctor {
namespace {

namespace fs = std::filesystem;

constexpr rlim_t files_for_a_full_host = 8192;  // 1,000 connections, 1,000 VMs of a few descriptors each
constexpr rlim_t fewest_files = 1024;
constexpr std::uint64_t threads_for_a_full_host = 8192;  // 1,000 VMs of a few threads each
constexpr std::uint64_t any_number = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t usual_vm = 256 * mib;
constexpr std::uint64_t usual_bounce_memory = 256 * mib;
constexpr int nice_instead = -10;  // as the fault thread does
const fs::path cgroups = "/sys/fs/cgroup";

// Of /proc/meminfo; 0 if it is not there.
std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    std::uint64_t kilobytes = 0;
    file >> kilobytes;
    if (name == "MemAvailable:") return kilobytes * kib;
    file.ignore(100, '\n');
  }
  return 0;
}

// A file with one number; any_number if it says "max", or is not there.
std::uint64_t limit_in(const fs::path& file) {
  std::uint64_t value = any_number;
  std::ifstream stream(file);
  stream >> value;
  return stream ? value : any_number;
}

// What systemd's TasksMax= and the groups above allow; any_number without cgroup v2.
std::uint64_t most_tasks_of_cgroup() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::/")) continue;
    std::uint64_t least = any_number;
    for (fs::path folder = cgroups / line.substr(4); folder != cgroups && folder.has_relative_path();
         folder = folder.parent_path())
      least = std::min(least, limit_in(folder / "pids.max"));
    return least;
  }
  return any_number;
}

enum class raised { to_real_time, to_nice, no };

// Tries it as the fault thread does, in a thread that ends with it.
raised try_to_raise_priority() {
  auto outcome = raised::no;
  std::thread([&outcome] {
    sched_param parameters{};
    parameters.sched_priority = 1;
    if (::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters) == 0) {
      outcome = raised::to_real_time;
    } else if (::setpriority(PRIO_PROCESS, 0, nice_instead) == 0) {
      outcome = raised::to_nice;
    }
  }).join();
  return outcome;
}

bool has_memory_controller() {
  struct statfs system {};
  if (::statfs(cgroups.c_str(), &system) != 0 || system.f_type != CGROUP2_SUPER_MAGIC) return false;
  std::ifstream file(cgroups / "cgroup.controllers");
  for (std::string word; file >> word;) {
    if (word == "memory") return true;
  }
  return false;
}

}  // namespace

finding check_threads(const doctor_options&) {
  rlimit processes{};
  ::getrlimit(RLIMIT_NPROC, &processes);  // RLIM_INFINITY is any_number
  const auto [most, by] = std::min({std::pair<std::uint64_t, std::string>{processes.rlim_max, "ulimit -Hu"},
                                    {limit_in("/proc/sys/kernel/threads-max"), "kernel.threads-max"},
                                    {limit_in("/proc/sys/kernel/pid_max"), "kernel.pid_max"},
                                    {most_tasks_of_cgroup(), "pids.max of this shell's cgroup"}});
  const std::string found = "at most " + std::to_string(most) + " threads, by " + by;
  if (most >= threads_for_a_full_host) return ok(found);
  return warning(found, "a VM has a few: raise that where coppiced runs (the packaged unit has TasksMax=infinity)");
}

finding check_priority(const doctor_options&) {
  switch (try_to_raise_priority()) {
    case raised::to_real_time:
      return ok("real-time for the fault thread");
    case raised::to_nice:
      return ok("nice " + std::to_string(nice_instead) + " for the fault thread");
    case raised::no:
      break;
  }
  return warning("no right to raise the fault thread's here",
                 "guests may stall longer if coppiced runs like this: ulimit -Hr 1, or CAP_SYS_NICE (the packaged unit "
                 "has LimitRTPRIO=1 and LimitNICE=-10)");
}

finding check_memory_limits(const doctor_options& options) {
  if (!options.cgroup.empty() && options.cgroup != "auto") {
    const auto checked = memory_cgroups::check(options.cgroup);
    return checked.ok() ? ok("in " + options.cgroup) : failed(checked.error().message(), "correct cgroup =");
  }
  if (has_memory_controller()) return ok("cgroup v2 has the memory controller");
  return warning("cgroup v2 has no memory controller here",
                 "only sandboxes with a memory limit need it: boot with systemd.unified_cgroup_hierarchy=1 if cgroup "
                 "v1 is mounted, "
                 "and with cgroup_enable=memory if the kernel has it off");
}

finding check_open_files(const doctor_options&) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string found =
      "at most " + (limit.rlim_max == RLIM_INFINITY ? "any" : std::to_string(limit.rlim_max)) + " open files a process";
  const std::string advice = "raise the hard limit (LimitNOFILE= of the unit, ulimit -Hn) to 65536";
  if (limit.rlim_max < fewest_files) return failed(found, advice);
  return limit.rlim_max < files_for_a_full_host ? warning(found, advice) : ok(found);
}

finding check_memory(const doctor_options&) {
  const std::uint64_t available = available_memory();
  const std::string found = format_bytes(available) + " available";
  if (available < usual_vm) return failed(found, "a VM of 256 MiB does not fit: free memory");
  if (available >= usual_vm + usual_bounce_memory) return ok(found);
  return warning(found, "a VM of 256 MiB and the daemon's --bounce-memory (256M) may not fit both: lower that");
}

}  // namespace coppice::doctor
