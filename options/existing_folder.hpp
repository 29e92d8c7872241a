// Where a folder that may still have to be made will stand.
#pragma once

#include <filesystem>

namespace coppice {

// `folder` as an absolute path, or the nearest one above it that exists.
inline std::filesystem::path existing_folder(std::filesystem::path folder) {
  std::error_code failure;
  folder = std::filesystem::absolute(folder, failure).lexically_normal();
  while (!std::filesystem::exists(folder, failure) && folder.has_relative_path()) folder = folder.parent_path();
  return folder;
}

}  // namespace coppice
