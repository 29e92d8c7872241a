#include "base/json_string.hpp"

#include <algorithm>
#include <cstddef>

namespace coppice {
namespace {

// Length of the UTF-8 sequence at the begin of `text`; 0 if there is none (RFC 3629, section 4).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t length = first < 0x80   ? 1
                             : first < 0xc2 ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Too long for its value, a surrogate, or above U+10FFFF.
  if (length > 2) {
    const unsigned char second = byte(1);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
        (first == 0xf4 && second > 0x8f))
      return 0;
  }
  return length;
}

void append_control(std::string& to, char c) {
  constexpr std::string_view digits = "0123456789abcdef";
  switch (c) {
    case '\n':
      to += "\\n";
      break;
    case '\t':
      to += "\\t";
      break;
    case '\r':
      to += "\\r";
      break;
    default:
      to.append("\\u00").append(1, digits[static_cast<unsigned char>(c) >> 4]).append(1, digits[c & 0xf]);
  }
}

}  // namespace

void append_json_string(std::string& to, std::string_view text) {
  to += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text.front();
    if (length == 0) {
      to += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      to.append(1, '\\').append(1, c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      append_control(to, c);
    } else {
      to += text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  to += '"';
}

}  // namespace coppice
