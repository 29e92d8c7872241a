#include "api/allowed_paths.hpp"

#include <algorithm>

namespace coppice {

namespace fs = std::filesystem;

constexpr std::size_t longest_quoted = 200;  // of a path, in an error

result<allowed_paths> allowed_paths::below(const std::vector<fs::path>& folders) {
  allowed_paths allowed;
  allowed.any_ = false;
  for (const fs::path& folder : folders) {
    std::error_code failure;
    const fs::path resolved = fs::canonical(folder, failure);
    if (failure || !fs::is_directory(resolved, failure)) {
      return error{errc::invalid_argument, 0, "allowed path " + folder.string() + " is no folder"};
    }
    allowed.folders_.push_back(resolved);
  }
  return allowed;
}

result<fs::path> allowed_paths::resolve(const fs::path& path) const {
  if (any_) return path;
  std::error_code failure;
  const fs::path resolved = fs::canonical(path, failure);
  const auto contains = [&](const fs::path& folder) {  // component by component: /a is not the beginning of /ab
    return std::mismatch(folder.begin(), folder.end(), resolved.begin(), resolved.end()).first == folder.end();
  };
  if (!failure && std::ranges::any_of(folders_, contains)) return resolved;
  return error{errc::invalid_argument, 0,
               path.string().substr(0, longest_quoted) +
                   " is no file below the folders that coppiced was started with (--allow-path)"};
}

}  // namespace coppice
