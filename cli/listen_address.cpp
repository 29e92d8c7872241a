#include "cli/listen_address.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>

namespace coppice {

result<listen_address> parse_listen_address(std::string_view text) {
  const error wrong{
      errc::invalid_argument, 0,
      "bad address '" + std::string(text.substr(0, 100)) + "': use IP:PORT, e.g. 127.0.0.1:8889, or unix:/PATH"};
  if (text.starts_with("unix:")) {
    if (!text.starts_with("unix:/")) return wrong;
    return listen_address{std::string(text), 0};
  }
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
  if (address.ip.starts_with("unix:")) return address.ip;
  const bool v6 = address.ip.find(':') != std::string::npos;
  return (v6 ? "[" + address.ip + "]" : address.ip) + ":" + std::to_string(address.port);
}

bool is_local(const listen_address& address) {
  if (address.ip.starts_with("unix:")) return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, address.ip.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, address.ip.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace coppice
