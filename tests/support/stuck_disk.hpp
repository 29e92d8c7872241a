// A file system of a test's own (FUSE) with a few files, whose writes are carried out only when the test lets them. Its
// server is a process of its own: a test that dies with writes under way could not be ended otherwise.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {

class stuck_disk {
 public:
  // What the processes share; the files' contents follow it.
  struct control {
    std::atomic<std::size_t> allowed;      // writes that may be carried out; the server takes from it
    std::atomic<bool> released;            // all may
    std::atomic<std::size_t> waiting;      // writes that are stuck now
    std::atomic<std::int64_t> latency_ms;  // after which each write is carried out; 0: never
  };

  // `size`: of each file, all zeros; `of::appending`: that it may grow to, from nothing. Writes are stuck from the
  // start. Forks. REQUIRES: called before this process starts threads.
  enum class of { whole_files, appending };
  explicit stuck_disk(std::size_t size, std::size_t files = 1, of kind = of::whole_files);
  stuck_disk(const stuck_disk&) = delete;
  stuck_disk& operator=(const stuck_disk&) = delete;
  // Writes that are stuck fail.
  ~stuck_disk();

  // False: this machine lets us mount no FUSE (not root, or no /dev/fuse).
  bool mounted() const noexcept { return mounted_; }
  std::filesystem::path file(std::size_t number = 0) const { return folder_.path() / std::to_string(number); }

  // Waits until a write is stuck; false if none comes within 20 s.
  bool wait_for_stuck_write() const;
  // Lets that many more writes through, in the order in which they come.
  void allow(std::size_t writes);
  // From now on writes go through, those that are stuck included, until hold().
  void release();
  void hold() { control_->released = false; }
  // Writes that would be stuck are carried out after so long, several at once; 0: not any more.
  void be_slow(std::chrono::milliseconds latency);
  // REQUIRES: no write to the file is under way.
  std::span<std::byte> content(std::size_t number = 0) const { return contents_.subspan(number * size_, size_); }

 private:
  const std::size_t size_;
  temp_dir folder_;
  unique_fd wake_;
  control* control_ = nullptr;
  std::span<std::byte> contents_;
  pid_t server_ = -1;
  bool mounted_ = false;
};

}  // namespace coppice
