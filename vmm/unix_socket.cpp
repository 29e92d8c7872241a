#include "vmm/unix_socket.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>

namespace coppice {
namespace {

// REQUIRES: check_socket_path(path)
sockaddr_un address_of(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path.native().begin(), path.native().end(), address.sun_path);
  return address;
}

// The cast is how the socket API takes addresses of all families.
const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

result<unique_fd> unix_stream() {
  unique_fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_error("socket");
  return fd;
}

}  // namespace

result<void> check_socket_path(const std::filesystem::path& path) {
  constexpr auto limit = sizeof(sockaddr_un::sun_path) - 1;
  if (!path.empty() && path.native().size() <= limit) return {};
  return error{errc::invalid_argument, 0,
               "socket path '" + path.string() + "' must have 1 to " + std::to_string(limit) +
                   " bytes: choose a shorter runtime directory"};
}

result<unique_fd> listen_unix(const std::filesystem::path& path) {
  COPPICE_TRY(check_socket_path(path));
  auto fd = unix_stream();
  if (!fd) return fd;
  ::unlink(path.c_str());
  const auto address = address_of(path);
  if (::bind(fd->get(), generic(address), sizeof address) != 0) return error{errc::io, errno, "bind " + path.string()};
  if (::listen(fd->get(), 4) != 0) return error{errc::io, errno, "listen at " + path.string()};
  return fd;
}

result<unique_fd> connect_unix(const std::filesystem::path& path) {
  COPPICE_TRY(check_socket_path(path));
  auto fd = unix_stream();
  if (!fd) return fd;
  const auto address = address_of(path);
  if (::connect(fd->get(), generic(address), sizeof address) != 0) return errno_error("connect to " + path.string());
  return fd;
}

}  // namespace coppice
