#include "actors/steps.hpp"

#include "base/units.hpp"

namespace coppice {

std::optional<branch_step> next_step(branch_mode mode, branch_step step) noexcept {
  switch (step) {
    case branch_step::reserve:
      return mode == branch_mode::live ? branch_step::prearm : branch_step::pause;
    case branch_step::prearm:
      return branch_step::pause;
    case branch_step::pause:
      return branch_step::snapshot;
    case branch_step::snapshot:
      return mode == branch_mode::live ? branch_step::rearm : branch_step::resume;
    case branch_step::rearm:
      return branch_step::resume;
    case branch_step::resume:
      return mode == branch_mode::full ? branch_step::publish : branch_step::copy;
    case branch_step::copy:
      return branch_step::publish;
    case branch_step::publish:
      break;
  }
  return std::nullopt;
}

std::chrono::milliseconds sized(std::chrono::milliseconds base, std::uint64_t bytes) noexcept {
  return base + std::chrono::milliseconds(bytes * 1000 / (32 * mib));
}

}  // namespace coppice
