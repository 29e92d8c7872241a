// A server for one exchange, that answers what a test tells it to.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <thread>

#include "base/fd.hpp"
#include "client/client.hpp"

namespace coppice {

// Takes one connection, reads a request's header, sends `answer`, and hangs up or waits for the client to.
class one_answer {
 public:
  explicit one_answer(std::string answer, bool hangs_up = true)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof here;
    // SAFETY: the socket calls take every address family by this cast.
    auto* const name = reinterpret_cast<sockaddr*>(&here);
    EXPECT_EQ(::bind(listener_.get(), name, size), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener_.get(), name, &size), 0);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(here.sin_port));
    thread_ = std::thread([this, answer = std::move(answer), hangs_up] { serve(answer, hangs_up); });
  }
  ~one_answer() {
    if (thread_.joinable()) thread_.join();
  }

  api_client client() const { return *api_client::create(url_, {"a-token", {}}); }
  const std::string& url() const { return url_; }
  // What the client has sent. Waits for the end of the connection.
  const std::string& request() {
    thread_.join();
    return request_;
  }

 private:
  void serve(const std::string& answer, bool hangs_up) {
    const unique_fd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char buffer[4096];
    for (ssize_t count = 1; count > 0 && request_.find("\r\n\r\n") == std::string::npos;) {
      count = ::recv(peer.get(), buffer, sizeof buffer, 0);
      if (count > 0) request_.append(buffer, static_cast<std::size_t>(count));
    }
    ::send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    for (ssize_t count = hangs_up ? 0 : 1; count > 0;) {
      count = ::recv(peer.get(), buffer, sizeof buffer, 0);
      if (count > 0) request_.append(buffer, static_cast<std::size_t>(count));
    }
  }

  unique_fd listener_;
  std::string url_;
  std::string request_;
  std::thread thread_;
};

}  // namespace coppice
