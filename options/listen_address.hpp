// The argument of coppiced's --listen.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

struct listen_address {
  std::string ip;          // "127.0.0.1", "::1"; or a unix socket, "unix:/path"
  std::uint16_t port = 0;  // 0: a free one
};

// Parses "IP:PORT", "[IPv6]:PORT" or "unix:/PATH". Errors: invalid_argument.
result<listen_address> parse_listen_address(std::string_view text);

// As one writes it in a URL: "127.0.0.1:8889", "[::1]:8889"; "unix:/path".
std::string to_string(const listen_address& address);

// Whether a server could listen there now: the host has the IP and nobody the port (0: the IP alone is tried); the
// folder of a unix socket can be written to. Leaves nothing behind. Errors: invalid_argument; conflict (in use).
result<void> check_can_listen(const listen_address& address);

// Whether only programs of this host can reach it.
bool is_local(const listen_address& address);

}  // namespace coppice
