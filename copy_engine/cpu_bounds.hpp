// Where a thread may run, for a time.
#pragma once

#include <sched.h>

#include <optional>
#include <vector>

namespace coppice {

// Of the calling thread, always the same one. Best effort: where the system refuses it, or no CPU would be left,
// nothing changes. What the thread was allowed before the first bound comes back with the last one's end.
class cpu_bounds {
 public:
  // On the CPU where it runs now, which is the result; nullopt if it has no other one, or it failed.
  std::optional<int> stay_here() noexcept;
  // Anywhere but on `cpus`; if they are none, as before.
  void keep_off(const std::vector<int>& cpus) noexcept;
  void release() noexcept { keep_off({}); }

 private:
  std::optional<cpu_set_t> before_;
};

}  // namespace coppice
