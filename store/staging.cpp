// A snapshot in the making: reserved, filled, published, or removed without a trace.
#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>

#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "base/log.hpp"
#include "store/file_work.hpp"
#include "store/manifest.hpp"
#include "store/store_state.hpp"

namespace coppice {

namespace {

// A published file never changes. Who gets to it may read it, whatever the umask: VMMs of other users do, by mounts of
// single files; the folders, whose mode the umask says, keep others away.
result<void> make_read_only(const std::filesystem::path& file) {
  if (::chmod(file.c_str(), 0444) != 0) return errno_error("make " + file.string() + " read-only");
  return {};
}

}  // namespace

disk_staging::~disk_staging() {
  // Content first, then the name: whoever reserves the tag next finds nothing in the way.
  for (const auto& path : {directory(), vmstate_path()}) {
    if (auto removed = remove_tree(path); !removed) {
      spdlog::warn("{}; it will be removed at the next start", removed.error().message());
    }
  }
  const std::lock_guard lock(state_->mutex);
  state_->staging.erase(tag_);
}

result<void> disk_staging::create_files() {
  const auto folder = directory();
  COPPICE_TRY(remove_tree(folder));  // left by a removal that failed
  COPPICE_TRY(remove_tree(vmstate_path()));
  if (::mkdir(folder.c_str(), 0755) != 0) return errno_error("create folder " + folder.string());
  COPPICE_TRY(state_->seams.at_step(store_step::staging_made));
  auto image = open_file(memory_path(), O_RDWR | O_CREAT | O_EXCL);
  if (!image) return std::move(image).error();
  if (::ftruncate(image->get(), static_cast<off_t>(memory_bytes_)) != 0) {
    return errno_error("set size of " + memory_path().string());
  }
  return state_->seams.at_step(store_step::image_made);
}

result<void> disk_staging::publish_files(snapshot_record& record) {
  const auto& at_step = state_->seams.at_step;
  COPPICE_TRY(at_step(store_step::publish_begun));
  COPPICE_TRY(move_vmstate_in(record));
  COPPICE_TRY(at_step(store_step::vmstate_copied));
  for (const auto& file : {directory() / "vmstate", memory_path()}) COPPICE_TRY(make_read_only(file));
  COPPICE_TRY(sync_file(directory() / "vmstate"));
  COPPICE_TRY(sync_file(memory_path()));
  COPPICE_TRY(at_step(store_step::data_synced));
  COPPICE_TRY(complete_record(record));
  COPPICE_TRY(write_text_file(directory() / "manifest.json", manifest_to_json(record)));
  COPPICE_TRY(at_step(store_step::manifest_written));
  COPPICE_TRY(sync_directory(directory()));
  COPPICE_TRY(at_step(store_step::staging_synced));
  COPPICE_TRY(rename_new(directory(), record.directory));
  auto durable = at_step(store_step::renamed);
  if (durable) durable = sync_directory(state_->snapshots);
  if (durable) durable = at_step(store_step::published);
  if (durable) return {};
  // Not durable is not published: back to staging, which the destructor removes.
  if (auto back = rename_new(record.directory, directory()); !back) {
    if (auto removed = remove_tree(record.directory); !removed) {
      spdlog::error("{}; a snapshot that failed to publish may be listed at the next start", removed.error().message());
    }
  }
  return durable;
}

result<void> disk_staging::move_vmstate_in(snapshot_record& record) const {
  const auto image_bytes = regular_file_size(memory_path());
  if (!image_bytes) return error{errc::corrupt, 0, memory_path().string() + " is missing"};
  if (*image_bytes != memory_bytes_) {
    return error{errc::corrupt, 0,
                 memory_path().string() + " has " + std::to_string(*image_bytes) + " bytes instead of " +
                     std::to_string(memory_bytes_)};
  }
  const auto vmstate_bytes = regular_file_size(vmstate_path());
  if (!vmstate_bytes) return error{errc::corrupt, 0, vmstate_path().string() + " is missing: the VMM wrote no vmstate"};
  if (*vmstate_bytes == 0) return error{errc::corrupt, 0, vmstate_path().string() + " is empty"};

  const auto target = directory() / "vmstate";
  auto moved = vmstate_path() == target ? checksum_file(target) : copy_file_checksummed(vmstate_path(), target);
  if (!moved) return std::move(moved).error();
  if (moved->bytes != *vmstate_bytes) {
    return error{errc::corrupt, 0, vmstate_path().string() + " changed its size while it was read"};
  }
  record.vmstate_bytes = moved->bytes;
  record.vmstate_checksum = moved->checksum;
  return {};
}

result<void> disk_staging::complete_record(snapshot_record& record) const {
  record.tag = tag_;
  record.directory = state_->directory_of(tag_);
  record.memory_bytes = memory_bytes_;
  if (record.created_at_unix == 0) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    record.created_at_unix = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  }
  if (record.memory_chunk_checksums.empty()) {
    auto image = open_file(memory_path(), O_RDONLY);
    if (!image) return std::move(image).error();
    auto checksums = checksum_image_file(image->get(), memory_bytes_);
    if (!checksums) return at_path(std::move(checksums).error(), memory_path());
    record.memory_chunk_checksums = std::move(*checksums);
  }
  const std::uint64_t chunks = (memory_bytes_ + chunk_size - 1) / chunk_size;
  if (record.memory_chunk_checksums.size() != chunks) {
    return error{errc::internal, 0,
                 std::to_string(record.memory_chunk_checksums.size()) + " chunk checksums for an image of " +
                     std::to_string(chunks) + " chunks"};
  }
  return {};
}

}  // namespace coppice
