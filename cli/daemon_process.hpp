// A coppiced of one's own, as a child process.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace coppice {

// Owns the process; the destructor kills it if it still runs. The process gets SIGTERM when this one dies. One thread
// uses it.
class daemon_process {
 public:
  // Starts `binary` with `arguments` and --listen 127.0.0.1:0, its output in `log`, and waits until it listens.
  // Errors: not_found (no such binary), internal (it ended: with the end of its log), deadline_exceeded.
  static result<std::unique_ptr<daemon_process>> start(const std::filesystem::path& binary,
                                                       std::vector<std::string> arguments,
                                                       const std::filesystem::path& log,
                                                       std::chrono::milliseconds deadline);
  daemon_process(const daemon_process&) = delete;
  daemon_process& operator=(const daemon_process&) = delete;
  ~daemon_process();

  const std::string& url() const noexcept { return url_; }
  pid_t pid() const noexcept { return pid_; }

  // SIGTERM, and waits. Errors: deadline_exceeded (it was killed then), internal (it ended by another code than 0).
  result<void> stop(std::chrono::milliseconds deadline);

 private:
  daemon_process(pid_t pid, std::filesystem::path log) : pid_(pid), log_(std::move(log)) {}
  result<void> wait_until_listening(std::chrono::milliseconds deadline);
  bool reap();  // true once the process is gone; its status is in status_
  std::string log_tail() const;

  pid_t pid_;
  std::filesystem::path log_;
  std::string url_;
  int status_ = 0;
  bool gone_ = false;
};

}  // namespace coppice
