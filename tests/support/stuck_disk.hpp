// A file system of a test's own (FUSE) with one file, whose writes are carried out only when the test lets them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/temp_dir.hpp"

struct fuse_session;

namespace coppice {

class stuck_disk {
 public:
  // `size`: of the file, all zeros. Writes are stuck from the start.
  explicit stuck_disk(std::size_t size);
  stuck_disk(const stuck_disk&) = delete;
  stuck_disk& operator=(const stuck_disk&) = delete;
  // Lets all writes through, and unmounts. REQUIRES: the file is closed, or will be without this thread's help.
  ~stuck_disk();

  // False: this machine lets us mount no FUSE (not root, or no /dev/fuse).
  bool mounted() const noexcept { return session_ != nullptr; }
  std::filesystem::path file() const { return folder_.path() / "file"; }

  // Waits until a write is stuck; false if none comes within 20 s.
  bool wait_for_stuck_write();
  // From now on writes go through, those that are stuck included.
  void release();
  // REQUIRES: no write is under way.
  const std::vector<std::byte>& content() const noexcept { return content_; }

  // Called by the file system's thread.
  void write(const char* data, std::size_t size, std::size_t offset);

 private:
  temp_dir folder_;
  fuse_session* session_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool released_ = false;
  bool stuck_ = false;
  std::vector<std::byte> content_;
  std::thread thread_;
};

}  // namespace coppice
