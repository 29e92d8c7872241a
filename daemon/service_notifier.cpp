#include "daemon/service_notifier.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/units.hpp"

namespace coppice {
namespace {

std::string take_variable(const char* name) {
  const char* const found = std::getenv(name);
  std::string value = found == nullptr ? "" : found;
  ::unsetenv(name);
  return value;
}

// A question that costs nothing and passes the API's whole way into the fleet.
constexpr const char* nobody = "sb-watchdog";

}  // namespace

service_environment service_environment::take() {
  service_environment found;
  found.socket = take_variable("NOTIFY_SOCKET");
  const std::string period = take_variable("WATCHDOG_USEC");
  const std::string pid = take_variable("WATCHDOG_PID");
  const bool for_us = pid.empty() || pid == std::to_string(::getpid());
  const auto microseconds = std::strtoull(period.c_str(), nullptr, 10);
  if (for_us && microseconds > 0) found.watchdog = std::chrono::microseconds(microseconds);
  return found;
}

// Thread-safe.
class service_notifier::messenger {
 public:
  explicit messenger(const std::string& path) {
    if (path.empty()) return;
    if (path.size() >= sizeof address_.sun_path || (path[0] != '/' && path[0] != '@')) {
      spdlog::warn("NOTIFY_SOCKET={} is no address of a unix socket", path);
      return;
    }
    address_.sun_family = AF_UNIX;
    std::memcpy(address_.sun_path, path.data(), path.size());
    if (path[0] == '@') address_.sun_path[0] = '\0';  // an abstract name (unix(7))
    length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    socket_ = unique_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }

  // Doesn't block. Nothing follows the last message.
  void send(std::string_view text, bool is_last = false) {
    const std::lock_guard lock(mutex_);
    if (!socket_) return;
    // SAFETY: the socket calls take any address as a sockaddr (unix(7)).
    const auto* address = reinterpret_cast<const sockaddr*>(&address_);
    const auto sent = ::sendto(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT, address, length_);
    if (sent < 0) spdlog::warn("the service manager can't be told '{}': {}", text, std::strerror(errno));
    if (is_last) socket_.reset();
  }

 private:
  std::mutex mutex_;
  sockaddr_un address_{};
  socklen_t length_ = 0;
  unique_fd socket_;
};

service_notifier::service_notifier(const service_environment& environment)
    : messenger_(std::make_shared<messenger>(environment.socket)) {
  if (!environment.socket.empty()) watchdog_ = environment.watchdog;
}

service_notifier::~service_notifier() {
  end_heartbeats();
}

void service_notifier::ready(std::string_view status, control_plane& plane, api_server& api) {
  messenger_->send("READY=1\nSTATUS=" + std::string(status));
  if (!watchdog_ || heartbeats_.joinable()) return;
  heartbeats_ = std::thread([this, interval = *watchdog_ / 2, &plane, &api] { beat(interval, plane, api); });
}

void service_notifier::stopping() {
  end_heartbeats();
  messenger_->send("STOPPING=1", true);
}

// The API's thread first: its server is not called from an answer, that may come after its end.
void service_notifier::beat(std::chrono::microseconds interval, control_plane& plane, api_server& api) {
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, interval, [this] { return ending_; })) {
    api.post([&plane, messenger = messenger_] {
      plane.sandbox(nobody, [messenger](const result<sandbox_info>& answer) {
        // That there is no such sandbox is an answer; a missed deadline is none.
        if (answer.ok() || answer.error().code == errc::not_found) messenger->send("WATCHDOG=1");
      });
    });
  }
}

void service_notifier::end_heartbeats() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ended_.notify_all();
  if (heartbeats_.joinable()) heartbeats_.join();
}

}  // namespace coppice
