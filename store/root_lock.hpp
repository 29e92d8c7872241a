// At most one store on a root.
#pragma once

#include <filesystem>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// Holds flock(2) on <root>/lock, whose text is our pid. Let go when destroyed, or by the kernel when the process dies,
// so a crash leaves nothing behind that would keep the next daemon out. Move-only.
class root_lock {
 public:
  root_lock() = default;
  // Errors: conflict (held: names root and holder's pid), no_space, io (names the path).
  static result<root_lock> acquire(const std::filesystem::path& root);

 private:
  explicit root_lock(unique_fd fd) : fd_(std::move(fd)) {}
  unique_fd fd_;
};

}  // namespace coppice
