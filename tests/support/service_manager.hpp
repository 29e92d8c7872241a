// systemd's end of sd_notify(3): a datagram socket that a test reads.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {

class fake_service_manager {
 public:
  fake_service_manager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << path_;
  }

  // What $NOTIFY_SOCKET is to be.
  const std::string& address() const { return path_; }

  // The next message; nothing if none comes within `limit`.
  std::optional<std::string> next(std::chrono::milliseconds limit = std::chrono::seconds(30)) {
    pollfd event{socket_.get(), POLLIN, 0};
    if (::poll(&event, 1, static_cast<int>(limit.count())) <= 0) return std::nullopt;
    char text[512];
    const ssize_t length = ::recv(socket_.get(), text, sizeof text, 0);
    if (length < 0) return std::nullopt;
    return std::string(text, static_cast<std::size_t>(length));
  }

 private:
  temp_dir folder_;
  std::string path_ = (folder_.path() / "notify").string();
  unique_fd socket_;
};

}  // namespace coppice
