#include "base/branch_stats.hpp"

namespace coppice {

std::string_view to_string(branch_mode mode) noexcept {
  switch (mode) {
    case branch_mode::live:
      return "live";
    case branch_mode::full:
      return "full";
    case branch_mode::diff:
      return "diff";
  }
  return "unknown";
}

result<branch_mode> parse_branch_mode(std::string_view text) {
  for (branch_mode mode : {branch_mode::live, branch_mode::full, branch_mode::diff}) {
    if (text == to_string(mode)) return mode;
  }
  return error{errc::invalid_argument, 0, "unknown branch mode \"" + std::string(text) + "\": use live, full or diff"};
}

}  // namespace coppice
