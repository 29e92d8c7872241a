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
constexpr std::size_t most_failed = 1000;  // that are listed until somebody deletes them
}  // namespace

// The tag that the branch will have. Errors: as control_plane::branch, before anything began.
result<std::string> fleet::admit(const ask::branch& ask) {
  if (stopping_) return error{errc::unavailable, 0, "the daemon is stopping"};
  const auto found = sandboxes_.find(ask.id);
  if (found == sandboxes_.end() || found->second.deleting)
    return error{errc::not_found, 0, "no sandbox '" + ask.id + "'"};
  const auto& entry = found->second;
  if (entry.info.state == sandbox_state::starting) return error{errc::conflict, 0, ask.id + " is still starting"};
  if (entry.stuck) return error{errc::conflict, 0, ask.id + " is stuck: its resume is being retried"};
  auto tag = ask.request.tag.value_or("branch-" + ask.id + "-" + std::to_string(entry.info.branch_count + 1));
  COPPICE_TRY(validate_tag(tag));
  if (is_taken(tag)) return error{errc::already_exists, 0, "snapshot '" + tag + "' is in the making"};
  if (const auto& vmm = with_->vmm.capabilities(); ask.request.mode == branch_mode::live && !vmm.live())
    return error{errc::unsupported, 0,
                 "no live branch with " + vmm.app_name + " " + vmm.version + ": it lacks " + vmm.missing_for_live() +
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
  info.status = snapshot_status::writing;
  info.created_at_unix = static_cast<std::uint64_t>(std::time(nullptr));
  info.branched_from = ask.id;
  info.parent_tag = parent.info.snapshot_tag;
  info.mode = ask.request.mode;
  info.memory_bytes = parent.info.memory_bytes;
  info.vcpus = parent.info.vcpus;
  info.network = parent.origin->network;
  info.vmm = with_->vmm.capabilities().app_name + " " + with_->vmm.capabilities().version;
  info.total_pages = info.memory_bytes / page_size;
  failed_.erase(*tag);
  with_->meters.branch_in_flight(1);
  with_->events->emit({event_kind::branch_started, ask.id, *tag, {}, ask.request.request_id});
  making_.emplace(id, making{info, ask.id, {}, {}, ask.answer, ask.request.wait, false, ask.request.request_id});
  count_sandboxes();
  begin(id);
}

// What the branch inherits stands in the record of the snapshot that its parent came from.
void fleet::begin(std::uint64_t id) {
  auto& entry = making_.at(id);
  const auto& parent = sandboxes_.at(entry.sandbox);
  snapshot_record record;
  record.tag = entry.info.tag;
  record.branched_from = entry.sandbox;
  record.parent_tag = parent.info.snapshot_tag;
  record.backing = parent.info.backing;
  record.vmm = entry.info.vmm;
  record.memory_bytes = parent.origin->memory_bytes;
  record.vcpus = parent.origin->vcpus;
  record.read_only_drives = parent.origin->read_only_drives;
  record.network = parent.origin->network;
  entry.worker = home_system().spawn<branch_coordinator>(
      with_, branch_job{id, entry.sandbox, *entry.info.mode, std::move(record), parent.vm, store_, fleet_handle(this),
                        entry.request_id});
  monitor(entry.worker);
  send(entry.worker, begin_branch{});
}

void fleet::when_resumed(const branch_resumed& event) {
  const auto found = making_.find(event.branch);
  if (found == making_.end()) return;
  auto& entry = found->second;
  entry.info.pause = event.pause;
  entry.info.note = event.note;
  entry.session = event.session;
  with_->events->emit({event_kind::branch_resumed, entry.sandbox, entry.info.tag, {}, entry.request_id});
  if (entry.wait || entry.answered) return;
  entry.answered = true;
  entry.answer(entry.info);
}

void fleet::when_ended(const branch_ended& event) {
  const auto found = making_.find(event.branch);
  if (found == making_.end()) return;
  auto entry = std::move(found->second);
  making_.erase(found);
  if (const auto parent = sandboxes_.find(entry.sandbox); parent != sandboxes_.end()) {
    parent->second.branches.erase(event.branch);
    if (event.outcome) parent->second.info.has_branched = true;
  }
  const bool is_base = entry.sandbox.empty();
  if (!is_base) count_end(entry, event.outcome);
  if (event.outcome) {
    const auto& record = **event.outcome;
    with_->events->emit({is_base ? event_kind::snapshot_created : event_kind::branch_ready,
                         entry.sandbox,
                         record.tag,
                         {},
                         entry.request_id});
    if (!is_base) remembered_[record.tag] = {event.note, event.timeline};
    if (!entry.answered) entry.answer(describe(record));
  } else {
    const auto& failure = event.outcome.error();
    if (!is_base)
      with_->events->emit(
          {event_kind::branch_failed, entry.sandbox, entry.info.tag, failure.message(), entry.request_id});
    // Who waits hears of it; who does not finds it in the list.
    if (entry.answered) {
      entry.info.status = snapshot_status::failed;
      entry.info.failure = failure.message();
      entry.info.timeline = event.timeline;
      failed_[entry.info.tag] = entry.info;
      if (failed_.size() > most_failed) {
        failed_.erase(
            std::ranges::min_element(failed_, {}, [](const auto& each) { return each.second.created_at_unix; }));
      }
    } else {
      entry.answer(failure);
    }
  }
  count_sandboxes();
  stop_goes_on();
}

void fleet::count_end(const making& branch, const result<record_ptr>& outcome) {
  const auto mode = *branch.info.mode;
  with_->meters.branch_in_flight(-1);
  if (outcome)
    with_->meters.branch_ready(mode, branch.sandbox, (*outcome)->pause.value_or(pause_breakdown{}), (*outcome)->copy);
  else
    with_->meters.branch_failed(mode, branch.sandbox, outcome.error().code);
}

// A worker that ended in order has reported before. Else what it held is given back, and the VM resumed.
void fleet::coordinator_died(const caf::down_msg& down) {
  for (const auto& [id, entry] : making_) {
    if (!entry.worker || down.source != entry.worker.address()) continue;
    auto failure = from_caf(down.reason);
    failure.context = "branch '" + entry.info.tag + "': its coordinator ended: " + failure.context;
    spdlog::error("{}", failure.message());
    if (const auto parent = sandboxes_.find(entry.sandbox); parent != sandboxes_.end())
      send(parent->second.vm, give_back{id});
    return when_ended({id, failure, {}, {}});
  }
}

void fleet::abort_branches_of(const sandbox_entry& entry, const error& reason) {
  for (const auto id : entry.branches) {
    if (const auto found = making_.find(id); found != making_.end() && found->second.worker)
      send(found->second.worker, abort_branch{reason, false});
  }
}

}  // namespace coppice
