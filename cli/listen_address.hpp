// The argument of coppiced's --listen.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

struct listen_address {
  std::string ip;          // "127.0.0.1", "::1"
  std::uint16_t port = 0;  // 0: a free one
};

// Parses "IP:PORT" or "[IPv6]:PORT". Errors: invalid_argument.
result<listen_address> parse_listen_address(std::string_view text);

// As one writes it in a URL: "127.0.0.1:8889", "[::1]:8889".
std::string to_string(const listen_address& address);

}  // namespace coppice
