#include "api/request_id.hpp"

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace coppice {
namespace {

constexpr std::size_t longest = 64;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

}  // namespace

std::string request_id(std::string_view offered) {
  if (!offered.empty() && offered.size() <= longest && std::ranges::all_of(offered, is_plain)) {
    return std::string(offered);
  }
  static std::atomic<std::uint64_t> count{0};
  std::uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != sizeof bits) bits = ++count;
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (char& c : text) {
    c = digits[bits & 15];
    bits >>= 4;
  }
  return text;
}

}  // namespace coppice
