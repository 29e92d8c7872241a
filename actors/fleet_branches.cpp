// The fleet's branches: admission, progress, end.
#include <algorithm>
#include <ctime>

#include "actors/branch_coordinator.hpp"
#include "actors/fleet.hpp"
#include "base/image_digest.hpp"
#include "base/log.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {
constexpr auto look_deadline = std::chrono::seconds(10);
}  // namespace
// The tag that the branch will have. Errors: as control_plane::branch, before anything began.
result<std::string> fleet::admit(const ask::branch& ask) {
  if (stopping_) return error{errc::unavailable, 0, "the daemon is stopping"};
  const auto found = sandboxes_.find(ask.id);
  if (found == sandboxes_.end() || found->second.deleting)
    return error{errc::not_found, 0, "no sandbox '" + ask.id + "'"};
  const auto& entry = found->second;
  if (const auto& wanted = ask.request.parent_tag; wanted && *wanted != entry.info.snapshot_tag)
    return error{errc::invalid_argument, 0,
                 ask.id + " comes from snapshot '" + entry.info.snapshot_tag + "', not from the parent_tag '" +
                     *wanted + "': leave parent_tag out, or name that one"};
  if (entry.info.state == sandbox_state::starting) return error{errc::conflict, 0, ask.id + " is still starting"};
  if (entry.stuck) return error{errc::conflict, 0, ask.id + " is stuck: its resume is being retried"};
  auto tag = ask.request.tag.value_or("branch-" + ask.id + "-" + std::to_string(entry.info.branch_count + 1));
  COPPICE_TRY(validate_tag(tag));
  COPPICE_TRY(snapshots_.check_free(tag));
  if (const auto& vmm = with_->vmm.capabilities(); ask.request.mode == branch_mode::live && !vmm.live())
    return error{errc::unsupported, 0,
                 "no live branch with " + vmm.name_and_version() + ": it lacks " + vmm.missing_for_live() +
                     "; use mode full or diff"};
  if (entry.branches.size() >= limits_.branches_per_parent)
    return error{
        errc::unavailable, 0,
        ask.id + " has " + std::to_string(entry.branches.size()) + " branches in flight, the limit of a sandbox"};
  if (making_.size() >= limits_.branches)
    return error{errc::unavailable, 0,
                 std::to_string(making_.size()) + " branches are in flight, the limit of this host"};
  return tag;
}

void fleet::branch(const ask::branch& ask) {
  auto tag = admit(ask);
  if (!tag) return ask.answer(std::move(tag).error());
  auto& parent = sandboxes_.at(ask.id);
  const auto id = next_id_++;
  parent.branches.insert(id);
  ++parent.info.branch_count;
  snapshot_info info;
  info.tag = *tag;
  info.created_at_unix = static_cast<std::uint64_t>(std::time(nullptr));
  info.branched_from = ask.id;
  info.parent_tag = parent.info.snapshot_tag;
  info.mode = ask.request.mode;
  info.memory_bytes = parent.info.memory_bytes;
  info.vcpus = parent.info.vcpus;
  info.network = parent.origin->network;
  info.vmm = with_->vmm.capabilities().name_and_version();
  info.total_pages = info.memory_bytes / page_size;
  snapshots_.begin(std::move(info));
  with_->meters.branch_in_flight(1);
  with_->events->emit({event_kind::branch_started, ask.id, *tag, {}, ask.request.request_id});
  making_.emplace(id, making{*tag, ask.id, ask.request.mode, ask.answer, ask.request.wait, ask.request.request_id});
  count_sandboxes();
  begin(id);
}

// What the branch inherits stands in the record of the snapshot that its parent came from.
void fleet::begin(std::uint64_t id) {
  auto& entry = making_.at(id);
  const auto& parent = sandboxes_.at(entry.sandbox);
  snapshot_record record;
  record.tag = entry.tag;
  record.branched_from = entry.sandbox;
  record.parent_tag = parent.info.snapshot_tag;
  record.backing = parent.info.backing;
  record.vmm = with_->vmm.capabilities().name_and_version();
  record.memory_bytes = parent.origin->memory_bytes;
  record.vcpus = parent.origin->vcpus;
  record.read_only_drives = parent.origin->read_only_drives;
  record.network = parent.origin->network;
  entry.worker = home_system().spawn<branch_coordinator>(
      with_, branch_job{id, entry.sandbox, entry.mode, std::move(record), parent.vm, store_, fleet_handle(this),
                        entry.request_id});
  monitor(entry.worker);
  send(entry.worker, begin_branch{});
}

void fleet::when_resumed(const branch_resumed& event) {
  const auto found = making_.find(event.branch);
  if (found == making_.end()) return;
  auto& entry = found->second;
  if (const auto parent = sandboxes_.find(entry.sandbox); parent != sandboxes_.end())
    parent->second.info.last_pause = event.pause.total;
  snapshots_.resumed(entry.tag, event.pause, event.note, event.session);
  with_->events->emit({event_kind::branch_resumed, entry.sandbox, entry.tag, {}, entry.request_id});
  if (entry.wait || entry.answered) return;
  entry.answered = true;
  entry.answer(snapshots_.find(entry.tag));
}

void fleet::when_ended(const branch_ended& event) {
  const auto found = making_.find(event.branch);
  if (found == making_.end()) return;
  const auto entry = std::move(found->second);
  making_.erase(found);
  if (const auto parent = sandboxes_.find(entry.sandbox); parent != sandboxes_.end()) {
    parent->second.branches.erase(event.branch);
    if (event.outcome) parent->second.info.has_branched = true;
  }
  if (!entry.sandbox.empty()) count_end(entry, event.outcome);
  if (event.outcome)
    made(entry, event);
  else
    not_made(entry, event);
  count_sandboxes();
  stop_goes_on();
}

void fleet::made(const making& entry, const branch_ended& event) {
  const auto kind = entry.sandbox.empty() ? event_kind::snapshot_created : event_kind::branch_ready;
  snapshots_.ready(**event.outcome, event.note, event.timeline);
  with_->events->emit({kind, entry.sandbox, entry.tag, {}, entry.request_id});
  if (!entry.answered) entry.answer(snapshots_.find(entry.tag));
  for (const auto& answer : entry.deletions) delete_in_order({entry.tag}, answer);  // they came too late to cancel it
}

// Who waits hears of it; who does not finds it in the list, unless it is somebody's wish.
void fleet::not_made(const making& entry, const branch_ended& event) {
  const auto kind = entry.sandbox.empty() ? event_kind::snapshot_failed : event_kind::branch_failed;
  const auto& failure = event.outcome.error();
  if (entry.answered && entry.deletions.empty())
    snapshots_.failed(entry.tag, failure, event.timeline);
  else
    snapshots_.remove(entry.tag);
  with_->events->emit({kind, entry.sandbox, entry.tag, failure.message(), entry.request_id});
  if (!entry.answered) entry.answer(failure);
  for (const auto& answer : entry.deletions) answer({});
}

void fleet::count_end(const making& branch, const result<record_ptr>& outcome) {
  with_->meters.branch_in_flight(-1);
  if (outcome)
    with_->meters.branch_ready(branch.mode, (*outcome)->pause.value_or(pause_breakdown{}), (*outcome)->copy);
  else
    with_->meters.branch_failed(branch.mode, outcome.error().code);
}

// A worker that ended in order has reported before. Else what it held is given back, and the VM resumed.
void fleet::coordinator_died(const caf::down_msg& down) {
  for (const auto& [id, entry] : making_) {
    if (!entry.worker || down.source != entry.worker.address()) continue;
    auto failure = from_caf(down.reason);
    failure.context = "branch '" + entry.tag + "': its coordinator ended: " + failure.context;
    spdlog::error("{}", failure.message());
    if (const auto parent = sandboxes_.find(entry.sandbox); parent != sandboxes_.end())
      send(parent->second.vm, give_back{id});
    // It may have ended between the publishing and its report.
    request(store_, look_deadline, find_snapshot{entry.tag})
        .then(
            [this, id = id](const published_snapshot& answer) {
              when_ended({id, answer.record, {}, {}});
            },
            [this, id = id, failure](const caf::error&) {
              when_ended({id, failure, {}, {}});
            });
    return;
  }
}

void fleet::abort_branches_of(const sandbox_entry& entry, const error& reason) {
  for (const auto id : entry.branches) {
    if (const auto found = making_.find(id); found != making_.end() && found->second.worker)
      send(found->second.worker, abort_branch{reason, false});
  }
}

}  // namespace coppice
