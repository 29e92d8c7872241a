#include "cli/signal_file.hpp"

#include <poll.h>
#include <sys/signalfd.h>

namespace coppice {

using std::chrono::steady_clock;

signal_file::signal_file(std::initializer_list<int> numbers) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int each : numbers) ::sigaddset(&signals, each);
  ::pthread_sigmask(SIG_BLOCK, &signals, &before_);
  fd_ = unique_fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

signal_file::~signal_file() {
  while (take() != 0) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int signal_file::take() const {
  signalfd_siginfo info{};
  return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
}

int signal_file::wait(std::optional<std::chrono::milliseconds> limit, int or_readable) const {
  const auto until = steady_clock::now() + limit.value_or(std::chrono::milliseconds(0));
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
    if (limit && left <= 0) return take();
    pollfd events[] = {{or_readable, POLLIN, 0}, {fd_.get(), POLLIN, 0}};      // poll(2) passes over a negative one
    if (::poll(events, 2, limit ? static_cast<int>(left) : -1) < 0) continue;  // EINTR
    if (events[0].revents != 0) return 0;
    if (events[1].revents != 0) return take();
  }
}

}  // namespace coppice
