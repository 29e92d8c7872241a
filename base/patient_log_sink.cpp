#include "base/patient_log_sink.hpp"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace coppice {

patient_log_sink::patient_log_sink(int fd, std::chrono::milliseconds last_words)
    : fd_(fd), last_words_(last_words), writer_([this] { run(); }) {
  ::pthread_setname_np(writer_.native_handle(), "log");
}

patient_log_sink::~patient_log_sink() {
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
    give_up_ = std::chrono::steady_clock::now() + last_words_;
  }
  changed_.notify_all();
  writer_.join();
}

void patient_log_sink::sink_it_(const spdlog::details::log_msg& line) {
  spdlog::memory_buf_t text;
  formatter_->format(line, text);
  const std::lock_guard lock(queue_mutex_);
  if (lines_.size() >= most_lines) {
    ++dropped_;
    return;
  }
  lines_.emplace_back(text.data(), text.size());
  changed_.notify_all();
}

void patient_log_sink::flush_() {
  std::unique_lock lock(queue_mutex_);
  changed_.wait_for(lock, last_words_, [this] { return lines_.empty() && !writing_; });
}

void patient_log_sink::run() {
  std::unique_lock lock(queue_mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return !lines_.empty() || stopping_; });
    if (lines_.empty()) return;
    std::string text = std::move(lines_.front());
    lines_.pop_front();
    if (const auto lost = std::exchange(dropped_, 0); lost > 0)
      text += std::to_string(lost) + " log lines were dropped here: nobody read the log\n";
    writing_ = true;
    lock.unlock();
    const bool written = write_out(text);
    lock.lock();
    writing_ = false;
    changed_.notify_all();
    if (!written) return;
  }
}

// False if that must not go on: stopping, and the reader does not read. A pipe that poll(2) calls writable takes
// PIPE_BUF bytes without blocking (pipe(7)); to make the descriptor itself non-blocking would make it so for others.
bool patient_log_sink::write_out(std::string_view text) {
  while (!text.empty()) {
    pollfd room{fd_, POLLOUT, 0};
    const int ready = ::poll(&room, 1, 50);
    if (ready > 0) {
      const auto written = ::write(fd_, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
      if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
      if (written < 0 && errno != EINTR && errno != EAGAIN) return true;  // no reader at all: this line is lost
    }
    const std::lock_guard lock(queue_mutex_);
    if (stopping_ && std::chrono::steady_clock::now() >= give_up_) return false;
  }
  return true;
}

}  // namespace coppice
