// What ties a request, its answer and its log lines together.
#pragma once

#include <string>
#include <string_view>

namespace coppice {

// `offered` (the client's X-Request-Id) if it is 1 to 64 letters, digits and -._ ; else a new one of 16 hex digits.
// Thread-safe.
std::string request_id(std::string_view offered);

}  // namespace coppice
