// The steps of a branch: their order, names, deadlines and undo. The table of docs/design.md in code.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/branch_stats.hpp"

namespace coppice {

enum class branch_step { reserve, prearm, pause, snapshot, rearm, resume, copy, publish };

struct step_spec {
  branch_step step;
  std::string_view name;  // in errors, logs and metrics
  std::chrono::milliseconds default_deadline;
  bool in_pause;          // counts against the pause's budget
  std::string_view undo;  // what has to be taken back when this step may have begun
};

inline constexpr std::array<step_spec, 8> step_table{{
    {branch_step::reserve, "reserve", std::chrono::seconds(2), false, "delete the staging folder"},
    {branch_step::prearm, "prearm", std::chrono::seconds(2), false, "drop the protection"},
    {branch_step::pause, "pause", std::chrono::milliseconds(50), true, "resume"},
    {branch_step::snapshot, "snapshot", std::chrono::milliseconds(100), true, "resume"},
    {branch_step::rearm, "rearm", std::chrono::milliseconds(50), true, "resume, drop the protection"},
    {branch_step::resume, "resume", std::chrono::milliseconds(250), false, "retry until the VM runs"},
    {branch_step::copy, "copy", std::chrono::seconds(30), false, "drop the protection, stop writing"},
    {branch_step::publish, "publish", std::chrono::seconds(30), false, "delete the staging folder"},
}};

constexpr const step_spec& spec_of(branch_step step) noexcept {
  return step_table[static_cast<std::size_t>(step)];
}
constexpr std::string_view to_string(branch_step step) noexcept {
  return spec_of(step).name;
}

// The step that follows in a branch of this mode; none after publish. `full` and `diff` take the same way without the
// copy engine; `diff` merges its image in the copy step.
std::optional<branch_step> next_step(branch_mode mode, branch_step step) noexcept;

// What may be configured. Where memory goes through the VMM or the disk as one piece, sized() is added.
struct branch_deadlines {
  std::array<std::chrono::milliseconds, step_table.size()> step = [] {
    std::array<std::chrono::milliseconds, step_table.size()> defaults{};
    for (const auto& row : step_table) defaults[static_cast<std::size_t>(row.step)] = row.default_deadline;
    return defaults;
  }();
  std::chrono::milliseconds pause_budget{150};  // live: pause sent to resume sent
  std::chrono::seconds turn{120};               // waiting for other branches of the same VM
  std::chrono::milliseconds of(branch_step which) const noexcept { return step[static_cast<std::size_t>(which)]; }
};

// `base`, plus the time that `bytes` take on a slow disk (32 MiB/s).
std::chrono::milliseconds sized(std::chrono::milliseconds base, std::uint64_t bytes) noexcept;

}  // namespace coppice
