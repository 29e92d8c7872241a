// Names of snapshots.
#pragma once

#include <string_view>

#include "base/result.hpp"

namespace coppice {

// Accepts [A-Za-z0-9][A-Za-z0-9._-]{0,63}: a file name that can't leave its folder. Errors: invalid_argument.
result<void> validate_tag(std::string_view tag);

}  // namespace coppice
