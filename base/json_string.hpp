// Text as a JSON string. For base/, which has no JSON library; others use nlohmann's.
#pragma once

#include <string>
#include <string_view>

namespace coppice {

// Appends `text` in quotes, escaped (RFC 8259, section 7). Bytes that are no UTF-8 become U+FFFD, so that the result is
// valid whatever a program has said.
void append_json_string(std::string& to, std::string_view text);

}  // namespace coppice
