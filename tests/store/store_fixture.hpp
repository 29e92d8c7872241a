// A store in a folder of its own, with ways to make snapshots.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "base/file.hpp"
#include "base/units.hpp"
#include "store/store_internal.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {

inline constexpr std::uint64_t image_bytes = 5 * mib;  // two chunks and a half

inline result<std::unique_ptr<snapshot_store>> open_at(const std::filesystem::path& root, store_seams seams = {}) {
  return open_store({.root = root, .keep_free_bytes = 0}, std::move(seams));
}

inline void write_page(const std::filesystem::path& file, std::uint64_t page, char content) {
  auto fd = open_file(file, O_RDWR);
  ASSERT_TRUE(fd.ok()) << fd.error().message();
  const std::string text(page_size, content);
  ASSERT_TRUE(write_all_at(fd->get(), std::as_bytes(std::span(text)), page * page_size).ok());
}

// What a VMM and the copy engine do to a staged snapshot.
inline void fill(const staged_snapshot& staged) {
  write_page(staged.memory_path(), 1, 'a');
  write_page(staged.memory_path(), image_bytes / page_size - 1, 'z');
  ASSERT_TRUE(write_text_file(staged.vmstate_path(), "registers of " + staged.tag()).ok());
}

inline result<snapshot_record> publish_new(snapshot_store& store, const std::string& tag, snapshot_record record = {}) {
  auto staged = store.reserve(tag, image_bytes);
  if (!staged) return std::move(staged).error();
  fill(**staged);
  return store.publish(std::move(*staged), std::move(record));
}

inline std::vector<std::string> tags_of(const snapshot_store& store) {
  std::vector<std::string> tags;
  for (const auto& record : store.list()) tags.push_back(record.tag);
  return tags;
}

// Names in a folder, sorted; empty if there is none.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> found;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    found.push_back(entry.path().filename().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A small tmpfs of a test's own; mounted() is false where that isn't allowed.
class small_disk {
 public:
  explicit small_disk(const std::string& options)
      : mounted_(::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options.c_str()) == 0) {}
  small_disk(const small_disk&) = delete;
  small_disk& operator=(const small_disk&) = delete;
  ~small_disk() {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const noexcept { return mounted_; }
  const std::filesystem::path& path() const noexcept { return folder_.path(); }

 private:
  temp_dir folder_;
  bool mounted_;
};

}  // namespace coppice
