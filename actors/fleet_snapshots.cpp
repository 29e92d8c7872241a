// The fleet's snapshots: asked for, made of a kernel, deleted, verified.
#include <algorithm>
#include <ctime>

#include "actors/base_builder.hpp"
#include "actors/fleet.hpp"
#include "base/log.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {
constexpr auto snapshots_deadline = std::chrono::seconds(30);
constexpr auto verify_deadline = std::chrono::minutes(30);
}  // namespace

void fleet::create_snapshot(const ask::create_snapshot& ask) {
  if (stopping_) return ask.answer(error{errc::unavailable, 0, "the daemon is stopping"});
  const auto& tag = ask.request.tag;
  if (auto valid = validate_tag(tag); !valid) return ask.answer(valid.error());
  if (auto is_free = snapshots_.check_free(tag); !is_free) return ask.answer(is_free.error());
  if (making_.size() >= limits_.branches)
    return ask.answer(error{errc::unavailable, 0,
                            std::to_string(making_.size()) + " snapshots are in the making, the limit of this host"});
  const auto id = next_id_++;
  snapshot_info info;
  info.tag = tag;
  info.created_at_unix = static_cast<std::uint64_t>(std::time(nullptr));
  info.vmm = with_->vmm.capabilities().name_and_version();
  info.memory_bytes = ask.request.memory_bytes;
  info.vcpus = ask.request.vcpus;
  info.network = ask.request.network;
  info.total_pages = info.memory_bytes / page_size;
  snapshots_.begin(std::move(info));
  auto worker = home_system().spawn<base_builder>(with_, base_job{id, ask.request, store_, fleet_handle(this)});
  monitor(worker);
  making_.emplace(id, making{tag, {}, branch_mode::full, ask.answer, true, ask.request.request_id, worker});
  send(worker, begin_branch{});
}

// Success if no sandbox runs from it and it is not in the making.
result<void> fleet::check_unused(const std::string& tag) const {
  if (std::ranges::any_of(making_, [&](const auto& each) { return each.second.tag == tag; }))
    return error{errc::conflict, 0, "snapshot '" + tag + "' is in the making"};
  std::string users;
  for (const auto& [id, entry] : sandboxes_) {
    if (entry.info.snapshot_tag == tag) users += (users.empty() ? "" : ", ") + id;
  }
  if (users.empty()) return {};
  return error{errc::conflict, 0, "snapshot '" + tag + "' is in use by " + users + ": delete them first"};
}

// Looks at all of them before it deletes the first.
void fleet::delete_snapshot(const ask::delete_snapshot& ask) {
  if (auto valid = validate_tag(ask.tag); !valid) return ask.answer(valid.error());
  if (cancel(ask.tag, ask.answer)) return;
  auto family = snapshots_.family(ask.tag);
  if (!family) return ask.answer(std::move(family).error());
  if (!ask.cascade) family->resize(1);
  for (const auto& tag : *family) {
    if (auto unused = check_unused(tag); !unused) return ask.answer(unused.error());
  }
  std::ranges::reverse(*family);  // the youngest first: what is left after a failure is still a tree
  delete_in_order(*std::move(family), ask.answer);
}

// True if `tag` is in the making: it is undone, and `answer` hears of the end.
bool fleet::cancel(const std::string& tag, const reply<void>& answer) {
  for (auto& [id, entry] : making_) {
    if (entry.tag != tag) continue;
    entry.deletions.push_back(answer);
    send(entry.worker, abort_branch{{errc::cancelled, 0, "its snapshot was deleted while it was made"}, true});
    return true;
  }
  return false;
}

void fleet::delete_in_order(std::vector<std::string> tags, const reply<void>& answer) {
  if (tags.empty()) return answer({});
  const auto tag = tags.front();
  tags.erase(tags.begin());
  const auto gone = [this, tag, tags, answer] {
    forget_snapshot(tag);
    delete_in_order(tags, answer);
  };
  if (const auto info = snapshots_.find(tag); info && info->status == snapshot_status::failed) return gone();
  request(store_, snapshots_deadline, remove_snapshot{tag})
      .then([gone](const finished&) { gone(); },
            [this, tag, answer](const caf::error& failure) {
              removal_failed(tag);
              answer(from_caf(failure));
            });
}

void fleet::forget_snapshot(const std::string& tag) {
  snapshots_.remove(tag);
  with_->events->emit({event_kind::snapshot_deleted, {}, tag, {}});
}

// It may be gone all the same, but for some file of it: the store looks.
void fleet::removal_failed(const std::string& tag) {
  request(store_, snapshots_deadline, find_snapshot{tag})
      .then([](const published_snapshot&) {},
            [this, tag](const caf::error& failure) {
              if (from_caf(failure).code == errc::not_found && snapshots_.check_ready(tag)) forget_snapshot(tag);
            });
}

void fleet::verify(const ask::verify& ask) {
  if (auto ready = snapshots_.check_ready(ask.tag); !ready) return ask.answer(std::move(ready).error());
  request(store_, verify_deadline, verify_snapshot{ask.tag})
      .then([ask](const verify_report& report) { ask.answer(report); },
            [ask](const caf::error& failure) { ask.answer(from_caf(failure)); });
}

}  // namespace coppice
