// A sandbox's states, and which command is legal in which.
#pragma once

#include <array>
#include <string_view>

namespace coppice {

enum class run_state {
  starting,  // process, API, snapshot load, hand-over
  running,   // the guest runs
  pausing,   // a pause was sent: it may run or not
  paused,    // the pause was answered
  stuck,     // a resume failed: being retried until it runs
  gone,      // the process ended
};

enum class run_command { begin_copy, pause, snapshot, resume };

struct run_state_row {
  run_state state;
  std::string_view name;
  bool begin_copy, pause, snapshot, resume;
};

inline constexpr std::array<run_state_row, 6> run_state_table{{
    // state                      name        begin  pause  snap   resume
    {run_state::starting, "starting", false, false, false, false},
    {run_state::running, "running", true, true, false, true},
    {run_state::pausing, "pausing", false, false, false, true},
    {run_state::paused, "paused", false, false, true, true},
    {run_state::stuck, "stuck", false, false, false, true},
    {run_state::gone, "gone", false, false, false, false},
}};

constexpr const run_state_row& row_of(run_state state) noexcept {
  return run_state_table[static_cast<std::size_t>(state)];
}

constexpr bool is_legal(run_state state, run_command command) noexcept {
  const auto& row = row_of(state);
  switch (command) {
    case run_command::begin_copy:
      return row.begin_copy;
    case run_command::pause:
      return row.pause;
    case run_command::snapshot:
      return row.snapshot;
    case run_command::resume:
      return row.resume;
  }
  return false;
}

}  // namespace coppice
