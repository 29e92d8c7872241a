// Tells systemd how the daemon does (sd_notify(3)). By the plain datagram, not libsystemd: its format is promised to
// stay, and a handful of lines spares a dependency.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "api/server.hpp"
#include "control_plane/control_plane.hpp"

namespace coppice {

// What the service manager put into the environment.
struct service_environment {
  std::string socket;                                 // $NOTIFY_SOCKET; empty: there is no service manager
  std::optional<std::chrono::microseconds> watchdog;  // $WATCHDOG_USEC, if it is meant for this process

  // Reads the variables and removes them, so that no VMM speaks in the daemon's name. REQUIRES: one thread.
  static service_environment take();
};

// Used by one thread. Says nothing where there is no service manager; a message that can't be sent is a warning in the
// log.
class service_notifier {
 public:
  explicit service_notifier(const service_environment& environment);
  service_notifier(const service_notifier&) = delete;
  service_notifier& operator=(const service_notifier&) = delete;
  ~service_notifier();  // ends the heartbeats

  // READY=1 with `status`, for `systemctl status`. From now on WATCHDOG=1 at half of the watchdog's time, each time
  // only after `plane` has answered and `api` has run what it was handed: if the actors or the API's thread hang, the
  // watchdog fires. Both outlive this object, or stopping().
  void ready(std::string_view status, control_plane& plane, api_server& api);

  // STOPPING=1, and no more heartbeats.
  void stopping();

 private:
  class messenger;

  void beat(std::chrono::microseconds interval, control_plane& plane, api_server& api);
  void end_heartbeats();

  std::shared_ptr<messenger> messenger_;  // shared with answers that are still due
  std::optional<std::chrono::microseconds> watchdog_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool ending_ = false;  // guarded by mutex_
  std::thread heartbeats_;
};

}  // namespace coppice
