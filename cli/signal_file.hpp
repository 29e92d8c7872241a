// Signals as a file to poll, and calls that a signal need not wait for.
#pragma once

#include <signal.h>
#include <sys/eventfd.h>

#include <chrono>
#include <functional>
#include <future>
#include <initializer_list>
#include <memory>
#include <optional>
#include <thread>

#include "base/fd.hpp"

namespace coppice {

// Holds the signals back from the calling thread, and those that it starts, while this lives; one that nobody took is
// forgotten at the end: it came too late. Used by that thread.
class signal_file {
 public:
  explicit signal_file(std::initializer_list<int> numbers);
  signal_file(const signal_file&) = delete;
  signal_file& operator=(const signal_file&) = delete;
  ~signal_file();

  // Readable while a signal waits.
  int fd() const noexcept { return fd_.get(); }
  // The signal that waits; 0 if there is none. Does not block.
  int take() const;
  // Waits for a signal, and takes it; 0 if there is none for so long. `or_readable`: ends the wait likewise.
  int wait(std::optional<std::chrono::milliseconds> limit, int or_readable = -1) const;

 private:
  sigset_t before_{};
  unique_fd fd_;
};

// What `call` returns; the signal's number instead if one comes first. The call goes on then, on a thread of its own,
// so it must own all that it uses, and who ends the process meanwhile does so without destructors (_Exit).
template <class T>
struct interruptible {
  std::optional<T> value;
  int signal = 0;  // without a value
};

template <class T>
interruptible<T> call_unless_interrupted(const signal_file& signals, std::function<T()> call) {
  struct running {
    std::promise<T> outcome;
    unique_fd done{::eventfd(0, EFD_CLOEXEC)};
  };
  const auto shared = std::make_shared<running>();
  auto outcome = shared->outcome.get_future();
  std::thread([shared, call = std::move(call)] {
    shared->outcome.set_value(call());
    ::eventfd_write(shared->done.get(), 1);
  }).detach();
  const int signal = signals.wait(std::nullopt, shared->done.get());
  if (signal != 0) return {std::nullopt, signal};
  return {outcome.get(), 0};
}

}  // namespace coppice
