#include "bench/plain_vmm.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <string>

#include "bench/engine_run.hpp"
#include "vmm/api_requests.hpp"

namespace coppice::bench {
namespace {

// The value of Content-Length in an answer's head; 0 if it has none.
std::size_t content_length(std::string head) {
  std::ranges::transform(head, head.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::size_t at = head.find("content-length:");
  return at == std::string::npos ? 0 : std::strtoul(head.c_str() + at + 15, nullptr, 10);
}

}  // namespace

result<plain_vmm> plain_vmm::connect(const std::filesystem::path& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket.string();
  if (path.size() >= sizeof address.sun_path)
    return error{errc::invalid_argument, 0, path + " is too long for a socket"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  unique_fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // The cast is how sockets are addressed: sockaddr is the common head of all address types.
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return errno_error("connect to " + path);
  return plain_vmm(std::move(fd));
}

result<void> plain_vmm::call(const api_request& request) {
  const std::string text = request.method + " " + request.path +
                           " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
                           std::to_string(request.body.size()) + "\r\n\r\n" + request.body;
  if (::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
    return errno_error("send " + request.path);
  std::string answer;
  for (std::size_t whole = std::string::npos; answer.size() < whole;) {
    char part[4096];
    const auto got = ::recv(socket_.get(), part, sizeof part, 0);
    if (got <= 0) return errno_error("receive the answer to " + request.path, got == 0 ? ECONNRESET : errno);
    answer.append(part, static_cast<std::size_t>(got));
    const std::size_t head = answer.find("\r\n\r\n");
    if (head != std::string::npos) whole = head + 4 + content_length(answer.substr(0, head));
  }
  if (answer.starts_with("HTTP/1.1 2")) return {};
  return error{errc::conflict, 0,
               request.method + " " + request.path + ": " + answer.substr(answer.find("\r\n\r\n") + 4)};
}

result<bare_pause> time_bare_pause(plain_vmm& vmm, const std::filesystem::path& vmstate) {
  bare_pause times;
  const auto timed = [&](const api_request& request, double& us) {
    const auto begin = bench_clock::now();
    auto outcome = vmm.call(request);
    us = seconds_since(begin) * 1e6;
    return outcome;
  };
  auto outcome = timed(api_requests::pause(), times.pause_us);
  if (outcome) outcome = timed(api_requests::snapshot_vmstate_only(vmstate), times.snapshot_us);
  const auto resumed = timed(api_requests::resume(), times.resume_us);
  if (!outcome) return std::move(outcome).error();
  if (!resumed) return resumed.error();
  return times;
}

}  // namespace coppice::bench
