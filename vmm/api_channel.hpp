// The way to one VMM's API, and the requests of docs/firecracker.md's table.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

struct api_request {
  std::string method;  // GET, PUT, PATCH
  std::string path;    // "/snapshot/create"
  std::string body;    // JSON, or empty
};

struct api_reply {
  int status = 0;    // 200 or 204
  std::string body;  // JSON, or empty
};

// One VMM's API: one request at a time on a kept connection; further calls queue in order. Thread-safe.
class api_channel {
 public:
  using completion = std::function<void(result<api_reply>)>;

  virtual ~api_channel() = default;

  // Sends `request`. Calls `done` exactly once, on the event loop's thread, with the reply if it is a success (2xx) or
  // else:
  //   deadline_exceeded  no answer within `deadline` (which counts from now; waiting in the queue included)
  //   unavailable        nobody listens, or the connection broke: the VMM is not up yet, or gone
  //   conflict           the VMM refused it (400); the context holds its fault_message
  //   cancelled          the channel was destroyed first
  // A request that missed its deadline may still be carried out by the VMM.
  virtual void call(api_request request, std::chrono::milliseconds deadline, completion done) = 0;
};

}  // namespace coppice
