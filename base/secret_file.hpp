// Files that hold secrets: tokens, private keys.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// Opens `file` to read; `what` names it in errors ("token file"). Errors: as open_file; invalid_argument if others than
// its owner and group may do anything with it.
result<unique_fd> open_secret(std::string_view what, const std::filesystem::path& file);

}  // namespace coppice
