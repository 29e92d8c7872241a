// Where a benchmark ran: what two runs must have in common to be compared.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace coppice::bench {

// {"cpu", "cores", "load_average" (of the minute before), "ram_bytes", "hypervisor", "free_page_reporting_order",
// "kernel", "kvm", "kvm_by", "root", "root_file_system", "root_device", "commit", "version", "build", "time"}. What
// can't be found out is null.
nlohmann::json describe_environment(const std::filesystem::path& root);

// What became of the machine's CPU time from its construction on (/proc/stat).
class cpu_watch {
 public:
  cpu_watch() : begin_(read()) {}
  // {"cpu_busy_percent", "cpu_steal_percent"}, of the time of all CPUs: stolen is what the host gave to others while
  // a CPU had work to do, as far as the host tells. Null if unknown.
  nlohmann::json since_then() const;

 private:
  struct times {
    double busy = 0, steal = 0, all = 0;  // clock ticks
  };
  static times read();
  times begin_;
};

}  // namespace coppice::bench
