#include "options/listen_address.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/fd.hpp"

namespace coppice {
namespace {

error wrong_address(std::string what, int code = 0) {
  return {errc::invalid_argument, code, "listen: " + std::move(what)};
}

result<void> check_unix_socket(const std::filesystem::path& path) {
  if (path.native().size() >= sizeof(sockaddr_un::sun_path)) {
    return wrong_address(path.string() + " is too long for a unix socket");
  }
  const auto folder = path.parent_path();
  std::error_code failure;
  if (!std::filesystem::is_directory(folder, failure)) return wrong_address(folder.string() + " is no folder");
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return wrong_address("no right to write to " + folder.string(), errno);
  return {};
}

}  // namespace

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

result<void> check_can_listen(const listen_address& address) {
  if (address.ip.starts_with("unix:")) return check_unix_socket(address.ip.substr(5));
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(address.port);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(address.port);
  const bool is_v4 = ::inet_pton(AF_INET, address.ip.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && ::inet_pton(AF_INET6, address.ip.c_str(), &v6.sin6_addr) != 1) {
    return wrong_address(address.ip + " is no IP address");
  }
  const unique_fd probe(::socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe) return errno_error("listen: socket");
  const int on = 1;  // as the server does: connections that have just ended hold nothing up
  ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // The socket API's own polymorphism: bind(2) tells the two apart by their family.
  const auto* const name = is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6);
  if (::bind(probe.get(), name, is_v4 ? sizeof v4 : sizeof v6) == 0) return {};
  if (errno == EADDRINUSE) return error{errc::conflict, errno, "listen: " + to_string(address)};
  return wrong_address("this host can't use " + to_string(address), errno);
}

bool is_local(const listen_address& address) {
  if (address.ip.starts_with("unix:")) return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, address.ip.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, address.ip.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace coppice
