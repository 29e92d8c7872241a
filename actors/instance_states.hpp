// An instance's states, and which command is legal in which.
#pragma once

#include <array>
#include <string_view>

namespace coppice {

enum class instance_state {
  starting,  // process, API, snapshot load, hand-over
  running,   // the guest runs
  pausing,   // a pause was sent: it may run or not
  paused,    // the pause was answered
  stuck,     // a resume failed: being retried until it runs
  gone,      // the process ended
};

enum class instance_command { begin_copy, pause, snapshot, resume };

struct instance_state_row {
  instance_state state;
  std::string_view name;
  bool begin_copy, pause, snapshot, resume;
};

inline constexpr std::array<instance_state_row, 6> instance_state_table{{
    // state                      name        begin  pause  snap   resume
    {instance_state::starting, "starting", false, false, false, false},
    {instance_state::running, "running", true, true, false, true},
    {instance_state::pausing, "pausing", false, false, false, true},
    {instance_state::paused, "paused", false, false, true, true},
    {instance_state::stuck, "stuck", false, false, false, true},
    {instance_state::gone, "gone", false, false, false, false},
}};

constexpr const instance_state_row& row_of(instance_state state) noexcept {
  return instance_state_table[static_cast<std::size_t>(state)];
}

constexpr bool is_legal(instance_state state, instance_command command) noexcept {
  const auto& row = row_of(state);
  switch (command) {
    case instance_command::begin_copy:
      return row.begin_copy;
    case instance_command::pause:
      return row.pause;
    case instance_command::snapshot:
      return row.snapshot;
    case instance_command::resume:
      return row.resume;
  }
  return false;
}

}  // namespace coppice
