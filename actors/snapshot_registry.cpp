#include "actors/snapshot_registry.hpp"

#include <algorithm>
#include <utility>

#include "base/image_digest.hpp"

namespace coppice {
namespace {

constexpr std::ptrdiff_t most_failed = 1000;  // that are listed until somebody deletes them

error no_snapshot(const std::string& tag) {
  return {errc::not_found, 0, "there is no snapshot '" + tag + "'"};
}

snapshot_info info_of(const snapshot_record& record, const vmm_capabilities& loader) {
  snapshot_info info;
  info.tag = record.tag;
  info.dir = record.directory;
  info.created_at_unix = record.created_at_unix;
  if (!record.branched_from.empty()) info.branched_from = record.branched_from;
  if (!record.parent_tag.empty()) info.parent_tag = record.parent_tag;
  info.status = snapshot_status::ready;
  info.bootable = loader.loads_snapshots_of(record.vmm);
  info.mode = record.mode;
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

}  // namespace

void snapshot_registry::begin(snapshot_info info) {
  info.status = snapshot_status::writing;
  info.bootable = false;
  const auto tag = info.tag;
  entries_.insert_or_assign(tag, entry{std::move(info), {}});
}

void snapshot_registry::resumed(const std::string& tag, const pause_breakdown& pause, const std::string& note,
                                std::weak_ptr<copy_session> session) {
  auto& which = entries_.at(tag);
  which.info.pause = pause;
  which.info.note = note;
  which.session = std::move(session);
}

void snapshot_registry::ready(const snapshot_record& record, std::string note, std::vector<step_time> timeline) {
  entry made{info_of(record, loader_), {}};
  made.info.note = std::move(note);
  made.info.timeline = std::move(timeline);
  entries_.insert_or_assign(record.tag, std::move(made));
}

void snapshot_registry::failed(const std::string& tag, const error& why, std::vector<step_time> timeline) {
  auto& which = entries_.at(tag);
  which.session.reset();
  which.info.status = snapshot_status::failed;
  which.info.failure = why.message();
  which.info.failure_code = why.code;
  which.info.timeline = std::move(timeline);
  forget_oldest_failure();
}

void snapshot_registry::forget_oldest_failure() {
  const auto is_failed = [](const auto& each) { return each.second.info.status == snapshot_status::failed; };
  if (std::ranges::count_if(entries_, is_failed) <= most_failed) return;
  auto oldest = entries_.end();
  for (auto each = entries_.begin(); each != entries_.end(); ++each) {
    const auto age = [](const auto& which) { return which->second.info.created_at_unix; };
    if (is_failed(*each) && (oldest == entries_.end() || age(each) < age(oldest))) oldest = each;
  }
  entries_.erase(oldest);
}

result<void> snapshot_registry::check_free(const std::string& tag) const {
  const auto found = entries_.find(tag);
  if (found == entries_.end() || found->second.info.status == snapshot_status::failed) return {};
  const bool writing = found->second.info.status == snapshot_status::writing;
  return error{errc::already_exists, 0,
               "snapshot '" + tag + (writing ? "' is in the making" : "' exists already") + ": choose another tag"};
}

result<void> snapshot_registry::check_ready(const std::string& tag) const {
  const auto found = entries_.find(tag);
  if (found == entries_.end()) return no_snapshot(tag);
  switch (const auto& info = found->second.info; info.status) {
    case snapshot_status::writing:
      return error{errc::conflict, 0, "snapshot '" + tag + "' is writing: wait until its status is ready"};
    case snapshot_status::failed:
      return error{errc::conflict, 0, "snapshot '" + tag + "' is failed: " + info.failure};
    case snapshot_status::ready:
      return {};
  }
  return {};
}

result<void> snapshot_registry::check_bootable(const std::string& tag) const {
  COPPICE_TRY(check_ready(tag));
  const auto& info = entries_.at(tag).info;
  if (info.bootable) return {};
  return error{errc::conflict, 0,
               "snapshot '" + tag + "' was made by " + info.vmm + ", and " + loader_.name_and_version() +
                   " can't load it: a VMM loads snapshots of its own name, major and minor version only. Start "
                   "coppiced with that VMM (--vmm), or make the snapshot anew"};
}

result<snapshot_info> snapshot_registry::find(const std::string& tag) const {
  const auto found = entries_.find(tag);
  if (found == entries_.end()) return no_snapshot(tag);
  return present(found->second);
}

result<snapshot_info> snapshot_registry::find_with_lineage(const std::string& tag) const {
  auto info = find(tag);
  if (!info) return info;
  const auto* child = &entries_.at(tag);
  while (info->ancestors.size() < entries_.size()) {
    child = parent_of(child->info);
    if (child == nullptr) break;
    info->ancestors.insert(info->ancestors.begin(), child->info.tag);
  }
  info->dependents = children_of(*info);
  return info;
}

std::vector<snapshot_info> snapshot_registry::all() const {
  std::vector<snapshot_info> infos;
  infos.reserve(entries_.size());
  for (const auto& [tag, each] : entries_) infos.push_back(present(each));
  std::ranges::stable_sort(infos, {}, &snapshot_info::created_at_unix);  // the map is in order of the tags
  return infos;
}

result<std::vector<std::string>> snapshot_registry::family(const std::string& tag) const {
  if (!entries_.contains(tag)) return no_snapshot(tag);
  std::vector<std::string> tags{tag};
  for (std::size_t i = 0; i < tags.size(); ++i) {
    for (auto& child : children_of(entries_.at(tags[i]).info)) {
      if (std::ranges::find(tags, child) == tags.end()) tags.push_back(std::move(child));
    }
  }
  return tags;
}

snapshot_info snapshot_registry::present(const entry& each) {
  auto info = each.info;
  if (const auto session = each.session.lock()) info.copied_pages = session->progress().settled_pages;
  return info;
}

// A tag that was deleted and made anew has no older children.
bool snapshot_registry::is_child_of(const snapshot_info& child, const snapshot_info& parent) {
  return child.parent_tag == parent.tag && child.created_at_unix >= parent.created_at_unix;
}

const snapshot_registry::entry* snapshot_registry::parent_of(const snapshot_info& child) const {
  if (!child.parent_tag) return nullptr;
  const auto found = entries_.find(*child.parent_tag);
  return found != entries_.end() && is_child_of(child, found->second.info) ? &found->second : nullptr;
}

std::vector<std::string> snapshot_registry::children_of(const snapshot_info& parent) const {
  std::vector<std::string> tags;
  for (const auto& [tag, each] : entries_) {
    if (is_child_of(each.info, parent)) tags.push_back(tag);
  }
  return tags;
}

}  // namespace coppice
