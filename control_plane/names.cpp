#include "control_plane/control_plane.hpp"

namespace coppice {

std::string_view to_string(snapshot_status status) noexcept {
  switch (status) {
    case snapshot_status::writing:
      return "writing";
    case snapshot_status::ready:
      return "ready";
    case snapshot_status::failed:
      return "failed";
  }
  return "unknown";
}

std::string_view to_string(sandbox_state state) noexcept {
  switch (state) {
    case sandbox_state::starting:
      return "starting";
    case sandbox_state::running:
      return "running";
    case sandbox_state::branching:
      return "branching";
    case sandbox_state::stuck:
      return "stuck";
  }
  return "unknown";
}

std::string_view to_string(event_kind kind) noexcept {
  switch (kind) {
    case event_kind::sandbox_created:
      return "sandbox.created";
    case event_kind::sandbox_running:
      return "sandbox.running";
    case event_kind::sandbox_stuck:
      return "sandbox.stuck";
    case event_kind::sandbox_deleted:
      return "sandbox.deleted";
    case event_kind::sandbox_died:
      return "sandbox.died";
    case event_kind::branch_started:
      return "branch.started";
    case event_kind::branch_resumed:
      return "branch.resumed";
    case event_kind::branch_ready:
      return "branch.ready";
    case event_kind::branch_failed:
      return "branch.failed";
    case event_kind::snapshot_created:
      return "snapshot.created";
    case event_kind::snapshot_failed:
      return "snapshot.failed";
    case event_kind::snapshot_deleted:
      return "snapshot.deleted";
  }
  return "unknown";
}

}  // namespace coppice
