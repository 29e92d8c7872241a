// The fleet's snapshots: the store's, and those in the making or failed.
#include <algorithm>
#include <ctime>

#include "actors/base_builder.hpp"
#include "actors/fleet.hpp"
#include "base/image_digest.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {

constexpr auto snapshots_deadline = std::chrono::seconds(30);
constexpr auto verify_deadline = std::chrono::minutes(30);

error no_snapshot(const std::string& tag) {
  return {errc::not_found, 0, "no snapshot '" + tag + "'"};
}

// A tag that was deleted and made anew has no older children.
bool is_child_of(const snapshot_info& child, const snapshot_info& parent) {
  return child.parent_tag == parent.tag && child.created_at_unix >= parent.created_at_unix;
}

std::vector<std::string> ancestors_of(const snapshot_info& info, const std::vector<snapshot_info>& all) {
  std::vector<std::string> found;
  const auto* child = &info;
  while (found.size() < all.size()) {
    const auto parent =
        std::find_if(all.begin(), all.end(), [&](const auto& each) { return is_child_of(*child, each); });
    if (parent == all.end()) break;
    found.insert(found.begin(), parent->tag);
    child = &*parent;
  }
  return found;
}

}  // namespace

snapshot_info fleet::describe(const snapshot_record& record) const {
  snapshot_info info;
  info.tag = record.tag;
  info.dir = record.directory;
  info.created_at_unix = record.created_at_unix;
  if (!record.branched_from.empty()) info.branched_from = record.branched_from;
  if (!record.parent_tag.empty()) info.parent_tag = record.parent_tag;
  info.status = snapshot_status::ready;
  info.bootable = true;
  info.mode = record.mode;
  if (const auto found = remembered_.find(record.tag); found != remembered_.end()) {
    info.note = found->second.note;
    info.timeline = found->second.timeline;
  }
  info.vmm = record.vmm;
  info.memory_bytes = record.memory_bytes;
  info.vcpus = record.vcpus;
  info.network = record.network;
  info.pause = record.pause;
  info.copy = record.copy;
  if (!record.memory_chunk_checksums.empty()) info.memory_checksum = image_checksum(record.memory_chunk_checksums);
  info.total_pages = record.memory_bytes / page_size;
  info.copied_pages = info.total_pages;
  return info;
}

bool fleet::is_taken(const std::string& tag) const {
  return std::any_of(making_.begin(), making_.end(), [&](const auto& entry) { return entry.second.info.tag == tag; });
}

std::vector<snapshot_info> fleet::unfinished() const {
  std::vector<snapshot_info> infos;
  for (const auto& [id, entry] : making_) {
    auto info = entry.info;
    if (const auto session = entry.session.lock()) info.copied_pages = session->progress().settled_pages;
    infos.push_back(std::move(info));
  }
  for (const auto& [tag, info] : failed_) infos.push_back(info);
  return infos;
}

void fleet::create_snapshot(const ask::create_snapshot& ask) {
  if (stopping_) return ask.answer(error{errc::unavailable, 0, "the daemon is stopping"});
  const auto& tag = ask.request.tag;
  if (auto valid = validate_tag(tag); !valid) return ask.answer(valid.error());
  if (is_taken(tag)) return ask.answer(error{errc::already_exists, 0, "snapshot '" + tag + "' is in the making"});
  if (making_.size() >= limits_.branches)
    return ask.answer(error{errc::unavailable, 0,
                            std::to_string(making_.size()) + " snapshots are in the making, the limit of this host"});
  failed_.erase(tag);
  const auto id = next_id_++;
  snapshot_info info;
  info.tag = tag;
  info.status = snapshot_status::writing;
  info.created_at_unix = static_cast<std::uint64_t>(std::time(nullptr));
  info.memory_bytes = ask.request.memory_bytes;
  info.vcpus = ask.request.vcpus;
  info.network = ask.request.network;
  info.total_pages = info.memory_bytes / page_size;
  auto worker = home_system().spawn<base_builder>(with_, base_job{id, ask.request, store_, fleet_handle(this)});
  monitor(worker);
  making_.emplace(id, making{info, {}, worker, {}, ask.answer, true, false, ask.request.request_id});
  send(worker, begin_branch{});
}

void fleet::list_snapshots(const ask::snapshots& ask) {
  request(store_, snapshots_deadline, coppice::list_snapshots{})
      .then(
          [this, ask](const snapshot_list& list) {
            std::vector<snapshot_info> infos;
            for (const auto& record : list.records) infos.push_back(describe(record));
            for (auto& info : unfinished()) {  // the store may be a little ahead of us
              if (std::none_of(infos.begin(), infos.end(), [&](const auto& other) { return other.tag == info.tag; }))
                infos.push_back(std::move(info));
            }
            ask.answer(std::move(infos));
          },
          [ask](const caf::error& failure) { ask.answer(from_caf(failure)); });
}

void fleet::find_snapshot(const ask::snapshot& ask) {
  auto find = [tag = ask.tag, answer = ask.answer](result<std::vector<snapshot_info>> all) {
    if (!all) return answer(std::move(all).error());
    const auto found = std::find_if(all->begin(), all->end(), [&](const auto& info) { return info.tag == tag; });
    if (found == all->end()) return answer(no_snapshot(tag));
    auto info = *found;
    info.ancestors = ancestors_of(info, *all);
    for (const auto& other : *all) {
      if (is_child_of(other, info)) info.dependents.push_back(other.tag);
    }
    answer(std::move(info));
  };
  list_snapshots({reply<std::vector<snapshot_info>>(std::move(find))});
}

// Success if no sandbox runs from it and it is not in the making.
result<void> fleet::check_unused(const std::string& tag) const {
  if (is_taken(tag)) return error{errc::conflict, 0, "snapshot '" + tag + "' is in the making"};
  std::string users;
  for (const auto& [id, entry] : sandboxes_) {
    if (entry.info.snapshot_tag == tag) users += (users.empty() ? "" : ", ") + id;
  }
  if (users.empty()) return {};
  return error{errc::conflict, 0, "snapshot '" + tag + "' is in use by " + users + ": delete them first"};
}

void fleet::delete_snapshot(const ask::delete_snapshot& ask) {
  if (auto valid = validate_tag(ask.tag); !valid) return ask.answer(valid.error());
  if (auto unused = check_unused(ask.tag); !unused) return ask.answer(unused.error());
  if (failed_.erase(ask.tag) > 0) return ask.answer({});
  if (!ask.cascade) return delete_in_order({ask.tag}, ask.answer);
  request(store_, snapshots_deadline, coppice::list_snapshots{})
      .then([this, ask](const snapshot_list& list) { delete_descendants(ask, list.records); },
            [ask](const caf::error& failure) { ask.answer(from_caf(failure)); });
}

// Looks at all of them before it deletes the first.
void fleet::delete_descendants(const ask::delete_snapshot& ask, const std::vector<snapshot_record>& records) {
  const auto root = std::find_if(records.begin(), records.end(), [&](const auto& each) { return each.tag == ask.tag; });
  if (root == records.end()) return ask.answer(no_snapshot(ask.tag));
  std::vector<const snapshot_record*> family{&*root};
  for (std::size_t i = 0; i < family.size(); ++i) {
    for (const auto& each : records) {
      const bool known = std::find(family.begin(), family.end(), &each) != family.end();
      if (!known && each.parent_tag == family[i]->tag && each.created_at_unix >= family[i]->created_at_unix)
        family.push_back(&each);
    }
  }
  std::vector<std::string> tags;
  for (const auto* each : family) {
    if (auto unused = check_unused(each->tag); !unused) return ask.answer(unused.error());
    tags.insert(tags.begin(), each->tag);  // the youngest first: what is left after a failure is still a tree
  }
  delete_in_order(std::move(tags), ask.answer);
}

void fleet::delete_in_order(std::vector<std::string> tags, const reply<void>& answer) {
  if (tags.empty()) return answer({});
  const auto tag = tags.front();
  tags.erase(tags.begin());
  request(store_, snapshots_deadline, remove_snapshot{tag})
      .then(
          [this, tag, tags, answer](const finished&) {
            remembered_.erase(tag);
            with_->events->emit({event_kind::snapshot_deleted, {}, tag, {}});
            delete_in_order(tags, answer);
          },
          [answer](const caf::error& failure) { answer(from_caf(failure)); });
}

void fleet::verify(const ask::verify& ask) {
  request(store_, verify_deadline, verify_snapshot{ask.tag})
      .then([ask](const verify_report& report) { ask.answer(report); },
            [ask](const caf::error& failure) { ask.answer(from_caf(failure)); });
}

}  // namespace coppice
