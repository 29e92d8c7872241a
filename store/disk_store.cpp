// snapshot_store on a file system.
#include "store/disk_store.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "base/tag.hpp"
#include "base/units.hpp"
#include "store/file_work.hpp"

namespace coppice {
namespace {

error unknown_snapshot(const std::string& tag) {
  return {errc::not_found, 0, "there is no snapshot '" + tag + "'"};
}

error taken(const std::string& tag, std::string_view why) {
  return {errc::already_exists, 0, "snapshot '" + tag + "' " + std::string(why) + ": choose another tag"};
}

// The chunks of the image whose checksum differs. Chunks that a shortened file no longer has, or the last one of a file
// that has grown, are bad.
result<std::vector<std::uint64_t>> bad_chunks_of(const snapshot_record& record) {
  std::vector<std::uint64_t> bad;
  const auto& expected = record.memory_chunk_checksums;
  std::vector<std::uint64_t> actual;
  const std::uint64_t size = regular_file_size(record.memory_path()).value_or(0);
  const std::uint64_t readable = size >= record.memory_bytes ? record.memory_bytes : size / chunk_size * chunk_size;
  if (readable > 0) {
    auto image = open_file(record.memory_path(), O_RDONLY);
    if (!image) return std::move(image).error();
    auto checksums = checksum_image_file(image->get(), readable);
    if (!checksums) return at_path(std::move(checksums).error(), record.memory_path());
    actual = std::move(*checksums);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const bool beyond_last = i + 1 == expected.size() && size > record.memory_bytes;
    if (i >= actual.size() || actual[i] != expected[i] || beyond_last) bad.push_back(i);
  }
  return bad;
}

}  // namespace

result<std::unique_ptr<staged_snapshot>> disk_store::reserve(const std::string& tag, std::uint64_t memory_bytes) {
  COPPICE_TRY(validate_tag(tag));
  if (memory_bytes == 0 || memory_bytes % page_size != 0) {
    return error{errc::invalid_argument, 0,
                 "a snapshot of " + std::to_string(memory_bytes) + " bytes of RAM: must be a multiple of 4096"};
  }
  std::string name;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->ready.contains(tag)) return taken(tag, "exists already");
    if (state_->staging.contains(tag)) return taken(tag, "is in the making");
    if (state_->blocked.contains(tag)) {
      return taken(tag, "has left " + state_->directory_of(tag).string() + ", which can't be read or is being removed");
    }
    COPPICE_TRY(check_space(tag, memory_bytes));
    name = tag + "-" + std::to_string(++state_->reservations);
    state_->staging.emplace(tag, store_state::reservation{memory_bytes + vmstate_allowance, state_->staging_of(name)});
  }
  auto staged = std::make_unique<disk_staging>(state_, tag, name, memory_bytes);
  COPPICE_TRY(staged->create_files());
  return std::unique_ptr<staged_snapshot>(std::move(staged));
}

result<void> disk_store::check_space(const std::string& tag, std::uint64_t memory_bytes) const {
  const auto space = space_of(state_->root);
  if (!space) return space.error();
  const std::uint64_t outstanding = state_->outstanding_bytes();
  const std::uint64_t kept = outstanding + state_->keep_free_bytes;
  const std::uint64_t usable = space->free_bytes > kept ? space->free_bytes - kept : 0;
  // In this order nothing can overflow, whatever size was asked for.
  if (usable >= vmstate_allowance && usable - vmstate_allowance >= memory_bytes) return {};
  return error{errc::no_space, 0,
               "snapshot '" + tag + "' needs " + format_bytes(memory_bytes) + " and " +
                   format_bytes(vmstate_allowance) + " for its vmstate, but only " + format_bytes(usable) +
                   " are free on " + state_->root.string() + " (" + format_bytes(space->free_bytes) + " less " +
                   format_bytes(outstanding) + " reserved and " + format_bytes(state_->keep_free_bytes) +
                   " to keep free): delete snapshots or add disk space"};
}

result<snapshot_record> disk_store::publish(std::unique_ptr<staged_snapshot> staged, snapshot_record record) {
  auto* staging = dynamic_cast<disk_staging*>(staged.get());
  if (staging == nullptr || staging->state() != state_) {
    return error{errc::internal, 0, "publish of a snapshot that another store staged"};
  }
  const std::string tag = staging->tag();
  COPPICE_TRY(staging->publish_files(record));
  {
    // Listed before the reservation goes: the name is taken at every moment.
    const std::lock_guard lock(state_->mutex);
    state_->ready.insert_or_assign(tag, ready_snapshot{record, {}});
  }
  staged.reset();  // removes the vmstate on tmpfs; the staging folder has become the snapshot
  return record;
}

std::vector<snapshot_record> disk_store::list() const {
  std::vector<snapshot_record> records;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [tag, snapshot] : state_->ready) records.push_back(snapshot.record);
  }
  std::ranges::stable_sort(records, {}, &snapshot_record::created_at_unix);  // the map was in order of the tags
  return records;
}

result<snapshot_record> disk_store::find(const std::string& tag) const {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->ready.find(tag);
  if (found == state_->ready.end()) return unknown_snapshot(tag);
  return found->second.record;
}

result<std::shared_ptr<const snapshot_record>> disk_store::pin(const std::string& tag) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->ready.find(tag);
  if (found == state_->ready.end()) return unknown_snapshot(tag);
  auto handle = found->second.pin.lock();
  if (!handle) {
    handle = std::make_shared<const snapshot_record>(found->second.record);
    found->second.pin = handle;
  }
  return handle;
}

result<void> disk_store::remove(const std::string& tag) {
  std::filesystem::path removed;
  ready_snapshot snapshot;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->staging.contains(tag)) {
      return error{errc::conflict, 0,
                   "snapshot '" + tag + "' is still in the making: wait for it, or cancel its branch"};
    }
    const auto found = state_->ready.find(tag);
    if (found == state_->ready.end()) return unknown_snapshot(tag);
    if (!found->second.pin.expired()) {
      return error{errc::conflict, 0, "snapshot '" + tag + "' is in use: delete the sandboxes that came from it first"};
    }
    snapshot = std::move(found->second);
    state_->ready.erase(found);
    state_->blocked.insert(tag);  // the name stays taken until the folder has gone
    removed = state_->snapshots / (std::string(removed_prefix) + tag + "-" + std::to_string(::getpid()) + "-" +
                                   std::to_string(++state_->removals));
  }
  auto renamed = rename_new(state_->directory_of(tag), removed);
  {
    const std::lock_guard lock(state_->mutex);
    state_->blocked.erase(tag);
    if (!renamed) state_->ready.emplace(tag, std::move(snapshot));
  }
  COPPICE_TRY(std::move(renamed));
  COPPICE_TRY(sync_directory(state_->snapshots));
  COPPICE_TRY(state_->seams.at_step(store_step::unlisted));
  COPPICE_TRY(remove_tree(removed));
  return state_->seams.at_step(store_step::removed);
}

result<verify_result> disk_store::verify(const std::string& tag) const {
  const auto record = find(tag);
  if (!record) return record.error();
  verify_result verified;
  verified.chunks = record->memory_chunk_checksums.size();
  auto bad = bad_chunks_of(*record);
  if (!bad) return std::move(bad).error();
  verified.bad_chunks = std::move(*bad);
  if (regular_file_size(record->vmstate_path())) {
    const auto vmstate = checksum_file(record->vmstate_path());
    if (!vmstate) return vmstate.error();
    verified.vmstate_ok = vmstate->bytes == record->vmstate_bytes && vmstate->checksum == record->vmstate_checksum;
  }
  // Removed while we read: what we saw were no damages.
  if (!verified.ok()) {
    if (auto still_there = find(tag); !still_there) return std::move(still_there).error();
  }
  return verified;
}

store_usage disk_store::usage() const {
  const auto found = space_of(state_->root);
  const disk_space space = found ? *found : disk_space{};
  const std::lock_guard lock(state_->mutex);
  const std::uint64_t outstanding = state_->outstanding_bytes();
  return {.free_bytes = space.free_bytes > outstanding ? space.free_bytes - outstanding : 0,
          .reserved_bytes = outstanding,
          .size_bytes = space.size_bytes,
          .snapshots = state_->ready.size()};
}

}  // namespace coppice
