// Which files of the host a request may name.
#pragma once

#include <filesystem>
#include <vector>

#include "base/result.hpp"

namespace coppice {

// Immutable: usable from any thread.
class allowed_paths {
 public:
  // Any path.
  allowed_paths() = default;
  // Paths below these folders only; none at all if there is none. Errors: invalid_argument (no such folder).
  static result<allowed_paths> below(const std::vector<std::filesystem::path>& folders);

  // `path` with its symlinks and dots resolved, which is what is to be opened; unchanged if any path is allowed.
  // Errors: invalid_argument, the same whether it is outside or does not exist: nobody learns what is outside.
  result<std::filesystem::path> resolve(const std::filesystem::path& path) const;

 private:
  bool any_ = true;
  std::vector<std::filesystem::path> folders_;  // resolved
};

}  // namespace coppice
