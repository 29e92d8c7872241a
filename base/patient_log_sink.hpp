// A log that never keeps its writer waiting.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

namespace coppice {

// Lines are formatted where they are logged, and written to a descriptor by a thread: whoever stops reading the log (a
// pager, a full pipe) must not stop actors, and with them a guest that is paused. What finds the queue full is dropped;
// a line says how many were, once there is room. Thread-safe, as every sink.
class patient_log_sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // `fd` is borrowed.
  explicit patient_log_sink(int fd, std::chrono::milliseconds last_words = std::chrono::milliseconds(500));
  ~patient_log_sink() override;  // writes what it can within `last_words`

  static constexpr std::size_t most_lines = 10'000;

 protected:
  void sink_it_(const spdlog::details::log_msg& line) override;
  void flush_() override;  // waits until all is written, `last_words` at most

 private:
  void run();
  bool write_out(std::string_view text);

  const int fd_;
  const std::chrono::milliseconds last_words_;
  std::mutex queue_mutex_;  // base_sink's own is held while sink_it_ and flush_ run
  std::condition_variable changed_;
  std::deque<std::string> lines_;
  std::uint64_t dropped_ = 0;
  bool writing_ = false;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point give_up_{};
  std::thread writer_;
};

}  // namespace coppice
