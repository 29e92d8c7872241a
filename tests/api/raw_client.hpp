// A socket that sends exactly what a test says, for what a well-behaved client never sends.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "base/fd.hpp"

namespace coppice {

class raw_client {
 public:
  explicit raw_client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // SAFETY: connect(2) takes every address family by this cast.
    connected_ = ::connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  bool connected() const { return connected_; }

  // False if the server hung up.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const auto sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  // Everything up to `end` (included), or up to the server's hanging up if `end` is empty. Gives up after 20 s.
  std::string read_until(std::string_view end) {
    char buffer[4096];
    for (;;) {
      const auto found = end.empty() ? std::string::npos : unread_.find(end);
      if (found != std::string::npos) return take(found + end.size());
      pollfd wait{fd_.get(), POLLIN, 0};
      if (::poll(&wait, 1, 20'000) <= 0) return take(unread_.size()) + "<timeout>";
      const auto count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return take(unread_.size());
      unread_.append(buffer, static_cast<std::size_t>(count));
    }
  }
  // Whether the server hangs up within `patience_ms`, whatever it sends before.
  bool hung_up(int patience_ms) {
    pollfd wait{fd_.get(), POLLIN, 0};
    char buffer[4096];
    while (::poll(&wait, 1, patience_ms) > 0) {
      if (::recv(fd_.get(), buffer, sizeof buffer, 0) <= 0) return true;
    }
    return false;
  }

 private:
  std::string take(std::size_t count) {
    std::string taken = unread_.substr(0, count);
    unread_.erase(0, count);
    return taken;
  }

  std::string unread_;
  unique_fd fd_;
  bool connected_ = false;
};

}  // namespace coppice
