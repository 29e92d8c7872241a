#include "options/listen_address.hpp"

#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <charconv>
#include <filesystem>

namespace coppice {

namespace asio = boost::asio;
using asio::ip::tcp;

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
  boost::system::error_code failure;
  const auto ip = asio::ip::make_address(address.ip, failure);
  if (failure) return wrong_address(address.ip + " is no IP address");
  const tcp::endpoint endpoint(ip, address.port);
  asio::io_context context;
  tcp::acceptor probe(context);
  probe.open(endpoint.protocol(), failure);
  // As the server does: connections that have just ended hold nothing up.
  if (!failure) probe.set_option(tcp::acceptor::reuse_address(true), failure);
  if (!failure) probe.bind(endpoint, failure);
  if (!failure) return {};
  if (failure == asio::error::address_in_use) {
    return error{errc::conflict, failure.value(), "listen: " + to_string(address)};
  }
  return wrong_address("this host can't use " + to_string(address), failure.value());
}

bool is_local(const listen_address& address) {
  if (address.ip.starts_with("unix:")) return true;
  boost::system::error_code failure;
  return asio::ip::make_address(address.ip, failure).is_loopback() && !failure;
}

}  // namespace coppice
