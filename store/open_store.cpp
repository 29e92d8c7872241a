// Opening a root: its lock, what a crash left, the manifests.
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/file.hpp"
#include "base/tag.hpp"
#include "store/disk_store.hpp"
#include "store/file_work.hpp"
#include "store/manifest.hpp"
#include "store/store_internal.hpp"

namespace coppice {
namespace {

using names = std::vector<std::string>;

// The root's own folder on tmpfs, or nothing if there is no tmpfs or the folder can't be trusted: /dev/shm is open to
// every user, so another may have made a folder of our name there.
std::filesystem::path vmstate_folder(const std::filesystem::path& tmpfs, const std::filesystem::path& root) {
  struct statfs file_system {};
  if (::statfs(tmpfs.c_str(), &file_system) != 0 || file_system.f_type != TMPFS_MAGIC) return {};
  const std::string text = root.string();
  std::array<char, 17> hash{};
  std::snprintf(hash.data(), hash.size(), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  auto folder = tmpfs / (std::string("coppice-") + hash.data());
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return {};
  struct stat status {};
  if (::lstat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return {};
  if (status.st_uid != ::geteuid() || (status.st_mode & 0077) != 0) return {};
  return folder;
}

result<std::vector<std::filesystem::path>> entries_of(const std::filesystem::path& folder) {
  std::error_code failure;
  std::vector<std::filesystem::path> entries;
  std::filesystem::directory_iterator entry(folder, failure);
  while (!failure && entry != std::filesystem::directory_iterator()) {
    entries.push_back(entry->path());
    entry.increment(failure);
  }
  if (failure) return errno_error("read folder " + folder.string(), failure.value());
  std::ranges::sort(entries);
  return entries;
}

result<snapshot_record> read_snapshot(const std::filesystem::path& directory) {
  auto json = read_text_file(directory / "manifest.json");
  if (!json) return std::move(json).error();
  auto record = manifest_from_json(*json, directory);
  if (!record) return record;
  const auto check = [](const std::filesystem::path& path, std::uint64_t expected) -> result<void> {
    if (regular_file_size(path) == expected) return {};
    return error{errc::corrupt, 0, path.string() + " is missing or has not its " + std::to_string(expected) + " bytes"};
  };
  COPPICE_TRY(check(record->vmstate_path(), record->vmstate_bytes));
  COPPICE_TRY(check(record->memory_path(), record->memory_bytes));
  return record;
}

result<void> remove_left_over(const std::filesystem::path& path, names& removed) {
  COPPICE_TRY(remove_tree(path));
  removed.push_back(path.string());
  return {};
}

// Removes what a crash left, and reads the rest. A folder that isn't ours (its name is no tag) is left alone.
result<void> scan(store_state& state, names& removed, names& unreadable) {
  if (!state.vmstates.empty()) {
    auto left_over = entries_of(state.vmstates);
    if (!left_over) return std::move(left_over).error();
    for (const auto& path : *left_over) COPPICE_TRY(remove_left_over(path, removed));
  }
  auto entries = entries_of(state.snapshots);
  if (!entries) return std::move(entries).error();
  for (const auto& path : *entries) {
    const std::string name = path.filename().string();
    if (name.starts_with(staging_prefix) || name.starts_with(removed_prefix)) {
      COPPICE_TRY(remove_left_over(path, removed));
      continue;
    }
    if (!validate_tag(name)) continue;
    auto record = read_snapshot(path);
    if (record) {
      state.ready.emplace(name, ready_snapshot{std::move(*record), {}});
    } else {
      unreadable.push_back(path.string() + ": " + record.error().message());
      state.blocked.insert(name);
    }
  }
  return {};
}

}  // namespace

store_state::~store_state() {
  if (!vmstates.empty()) ::rmdir(vmstates.c_str());  // fails if something is left in it: the next start sees to that
}

std::uint64_t store_state::outstanding_bytes() const {
  std::uint64_t outstanding = 0;
  for (const auto& [tag, reserved] : staging) {
    const std::uint64_t written = allocated_bytes(reserved.directory / "memory.bin");
    if (reserved.bytes > written) outstanding += reserved.bytes - written;
  }
  return outstanding;
}

result<disk_space> space_of(const std::filesystem::path& root) {
  struct statvfs file_system {};
  if (::statvfs(root.c_str(), &file_system) != 0) return errno_error("free space of " + root.string());
  return disk_space{.free_bytes = static_cast<std::uint64_t>(file_system.f_bavail) * file_system.f_frsize,
                    .size_bytes = static_cast<std::uint64_t>(file_system.f_blocks) * file_system.f_frsize};
}

result<std::unique_ptr<snapshot_store>> open_store(const store_options& options, store_seams seams) {
  COPPICE_TRY(make_folders(options.root, 0755));
  std::error_code failure;
  const auto root = std::filesystem::canonical(options.root, failure);
  if (failure) return errno_error("resolve " + options.root.string(), failure.value());

  auto state = std::make_shared<store_state>();
  auto lock = root_lock::acquire(root);
  if (!lock) return std::move(lock).error();
  state->lock = std::move(*lock);
  state->root = root;
  state->snapshots = root / "snapshots";
  state->keep_free_bytes = options.keep_free_bytes;
  COPPICE_TRY(make_folders(state->snapshots, 0755));
  COPPICE_TRY(sync_directory(root));
  state->vmstates = vmstate_folder(seams.tmpfs, root);
  state->seams = std::move(seams);

  names removed;
  names unreadable;
  COPPICE_TRY(scan(*state, removed, unreadable));
  return std::unique_ptr<snapshot_store>(
      std::make_unique<disk_store>(std::move(state), std::move(removed), std::move(unreadable)));
}

result<std::unique_ptr<snapshot_store>> snapshot_store::open(const store_options& options) {
  return open_store(options, {});
}

}  // namespace coppice
