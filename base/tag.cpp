#include "base/tag.hpp"

#include <algorithm>
#include <string>

namespace coppice {

result<void> validate_tag(std::string_view tag) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const auto legal = [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; };
  if (!tag.empty() && tag.size() <= 64 && alphanumeric(tag.front()) && std::ranges::all_of(tag, legal)) return {};
  return error{errc::invalid_argument, 0,
               "bad tag '" + std::string(tag.substr(0, 80)) +
                   "': use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"};
}

}  // namespace coppice
