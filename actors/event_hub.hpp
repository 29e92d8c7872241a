// Tells whoever wants to know of changes to sandboxes and branches.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "control_plane/control_plane.hpp"

namespace coppice {

// Thread-safe. One per daemon.
class event_hub {
 public:
  using listener = std::function<void(const plane_event&)>;

  // `hear` is called for each event from now on, on the emitting thread, one at a time. It must neither block nor call
  // this object.
  void subscribe(listener hear) {
    const std::lock_guard lock(mutex_);
    listeners_.push_back(std::move(hear));
  }
  void emit(const plane_event& event) {
    const std::lock_guard lock(mutex_);
    for (const auto& hear : listeners_) hear(event);
  }

 private:
  std::mutex mutex_;
  std::vector<listener> listeners_;
};

}  // namespace coppice
