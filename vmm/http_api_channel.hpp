// A VMM's API over its unix socket: HTTP/1.1 on the event loop.
#pragma once

#include <filesystem>
#include <memory>

#include "vmm/api_channel.hpp"
#include "vmm/event_loop.hpp"

namespace coppice {

// One kept connection, opened at the first call and again after it broke or a call missed its deadline. Thread-safe.
// If the VMM closed the kept connection before it answered a byte, the request is sent once more on a new one.
// A refusal reads "PUT /snapshot/load: <fault_message>"; other statuses than 2xx are named, `conflict` too
// (503, too many connections: `unavailable`).
// The destructor cancels what is unanswered and returns when every completion has run (on the loop's own thread: those
// of calls made a moment before may follow): don't hold a lock in it that a completion takes.
// Why not libcurl: docs/decisions/api-channel.md.
class http_api_channel final : public api_channel {
 public:
  http_api_channel(std::shared_ptr<event_loop> loop, std::filesystem::path socket);
  ~http_api_channel() override;

  void call(api_request request, std::chrono::milliseconds deadline, completion done) override;

 private:
  class connection;

  std::shared_ptr<event_loop> loop_;
  std::shared_ptr<connection> connection_;  // used on the loop's thread only
};

}  // namespace coppice
