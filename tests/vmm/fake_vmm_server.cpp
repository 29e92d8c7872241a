#include "tests/vmm/fake_vmm_server.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <stdexcept>

#include "vmm/unix_socket.hpp"

namespace coppice {

std::string http_reply(int status, const std::string& body) {
  auto head = "HTTP/1.1 " + std::to_string(status) + " X\r\nServer: fake\r\nConnection: keep-alive\r\n";
  if (status != 204)
    head += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  return head + "\r\n" + body;
}

fake_vmm_server::fake_vmm_server(const std::filesystem::path& socket, script answer)
    : answer_(std::move(answer)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  auto listener = listen_unix(socket);
  if (!listener) throw std::runtime_error(listener.error().message());
  listener_ = std::move(*listener);
  thread_ = std::thread([this] { serve(); });
}

fake_vmm_server::~fake_vmm_server() {
  const std::uint64_t one = 1;
  if (::write(stop_.get(), &one, sizeof one) != sizeof one) std::terminate();
  thread_.join();
}

std::vector<std::string> fake_vmm_server::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

bool fake_vmm_server::wait_readable(int fd) const {
  pollfd fds[2] = {{fd, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (::poll(fds, 2, -1) < 0) {
  }
  return fds[1].revents == 0;
}

void fake_vmm_server::serve() {
  while (wait_readable(listener_.get())) {
    const unique_fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) continue;
    ++accepted_;
    serve_connection(connection.get());
  }
}

void fake_vmm_server::serve_connection(int fd) {
  std::string pending;
  for (;;) {
    const auto head_end = pending.find("\r\n\r\n");
    if (head_end != std::string::npos) {
      std::size_t body = 0;
      if (const auto at = pending.find("Content-Length: "); at < head_end)
        body = std::stoul(pending.substr(at + 16, 20));
      if (const auto whole = head_end + 4 + body; pending.size() >= whole) {
        const auto request = pending.substr(0, whole);
        pending.erase(0, whole);
        {
          const std::lock_guard lock(mutex_);
          requests_.push_back(request);
        }
        const auto answer = answer_(request);
        if (answer.empty()) return;
        if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) return;
        if (answer.find("\r\n\r\n") == std::string::npos || answer.find("cut off") != std::string::npos) return;
        continue;
      }
    }
    if (!wait_readable(fd)) return;
    char buffer[4096];
    const auto got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) return;
    pending.append(buffer, static_cast<std::size_t>(got));
  }
}

}  // namespace coppice
