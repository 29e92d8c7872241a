#include "copy_engine/cpu_bounds.hpp"

namespace coppice {
namespace {

std::optional<cpu_set_t> allowed_cpus() {
  cpu_set_t cpus;
  if (::sched_getaffinity(0, sizeof cpus, &cpus) != 0) return std::nullopt;
  return cpus;
}

}  // namespace

std::optional<int> cpu_bounds::stay_here() noexcept {
  const auto allowed = before_ ? before_ : allowed_cpus();
  const int here = ::sched_getcpu();
  if (!allowed || here < 0 || here >= CPU_SETSIZE || CPU_COUNT(&*allowed) < 2) return std::nullopt;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(here, &one);
  if (::sched_setaffinity(0, sizeof one, &one) != 0) return std::nullopt;
  before_ = allowed;
  return here;
}

void cpu_bounds::keep_off(const std::vector<int>& cpus) noexcept {
  if (cpus.empty()) {
    if (before_ && ::sched_setaffinity(0, sizeof *before_, &*before_) == 0) before_.reset();
    return;
  }
  if (!before_) before_ = allowed_cpus();
  if (!before_) return;
  cpu_set_t others = *before_;
  for (const int cpu : cpus) CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) > 0) ::sched_setaffinity(0, sizeof others, &others);
}

}  // namespace coppice
