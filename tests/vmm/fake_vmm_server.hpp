// An HTTP server on a unix socket that answers as the test says: a VMM's API without a VMM.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"

namespace coppice {

// Serves connections one after another on a thread of its own, as a VMM does.
class fake_vmm_server {
 public:
  // Gets the whole request (head and body); returns the bytes to send, or "" to close the connection.
  using script = std::function<std::string(const std::string& request)>;

  fake_vmm_server(const std::filesystem::path& socket, script answer);
  ~fake_vmm_server();
  fake_vmm_server(const fake_vmm_server&) = delete;
  fake_vmm_server& operator=(const fake_vmm_server&) = delete;

  int accepted() const { return accepted_; }
  std::vector<std::string> requests() const;

 private:
  void serve();
  void serve_connection(int fd);
  bool wait_readable(int fd) const;  // false: stopping

  script answer_;
  unique_fd listener_;
  unique_fd stop_;
  std::atomic<int> accepted_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

// "HTTP/1.1 <status>" with a body and its length.
std::string http_reply(int status, const std::string& body);

}  // namespace coppice
