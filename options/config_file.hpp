// The file of coppiced's --config: TOML (toml.io), read by toml++, without tables: there are no sections to tell apart.
// A value is a string, a whole number, true, false, or a list of these.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace coppice {

struct config_entry {
  std::string key;
  std::vector<std::string> values;  // one, unless it is a list
  unsigned line = 0;                // 1 is the first
};

// The entries in the order of their lines. `file` is for messages. Errors: invalid_argument ("FILE:LINE: ..."), also
// for a key that stands there twice.
result<std::vector<config_entry>> parse_config(std::string_view text, const std::string& file);

// `text` as a string of such a file, quotes included.
std::string quoted_for_config(std::string_view text);

}  // namespace coppice
