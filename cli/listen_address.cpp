#include "cli/listen_address.hpp"

#include <charconv>

namespace coppice {

result<listen_address> parse_listen_address(std::string_view text) {
  const error wrong{errc::invalid_argument, 0,
                    "bad address '" + std::string(text.substr(0, 100)) + "': use IP:PORT, e.g. 127.0.0.1:8889"};
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong;
  std::string_view ip = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (ip.starts_with('[') && ip.ends_with(']')) {
    ip = ip.substr(1, ip.size() - 2);
  } else if (ip.find(':') != std::string_view::npos) {
    return wrong;  // an IPv6 address without brackets: which colon begins the port is anyone's guess
  }
  listen_address address{std::string(ip), 0};
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (ip.empty() || port.empty() || failure != std::errc() || end != port.data() + port.size()) return wrong;
  return address;
}

std::string to_string(const listen_address& address) {
  const bool v6 = address.ip.find(':') != std::string::npos;
  return (v6 ? "[" + address.ip + "]" : address.ip) + ":" + std::to_string(address.port);
}

}  // namespace coppice
