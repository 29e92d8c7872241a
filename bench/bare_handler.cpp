#include "bench/bare_handler.hpp"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <array>

#include "base/units.hpp"

namespace coppice::bench {
namespace {

// `mode`: UFFDIO_WRITEPROTECT_MODE_WP, or 0 to lift it and wake who waits.
bool write_protect(int uffd, std::uint64_t start, std::uint64_t length, std::uint64_t mode) {
  uffdio_writeprotect change{};
  change.range.start = start;
  change.range.len = length;
  change.mode = mode;
  return ::ioctl(uffd, UFFDIO_WRITEPROTECT, &change) == 0;
}

}  // namespace

result<std::unique_ptr<bare_handler>> bare_handler::start(uffd_handover handover) {
  unique_fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return errno_error("eventfd");
  std::unique_ptr<bare_handler> made(new bare_handler(std::move(handover), std::move(stop)));
  made->thread_ = std::thread([self = made.get()] { self->run(); });
  return made;
}

bare_handler::~bare_handler() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

result<void> bare_handler::protect() {
  const memory_region& region = handover_.regions.front();
  if (!write_protect(handover_.uffd.get(), region.host_address, region.size, UFFDIO_WRITEPROTECT_MODE_WP))
    return errno_error("write-protect the bench's memory");
  return {};
}

void bare_handler::run() {
  sched_param parameters{};
  parameters.sched_priority = 1;
  ::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters);  // without the right to: at the usual priority
  std::array<pollfd, 2> waited{{{handover_.uffd.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
  for (;;) {
    ::poll(waited.data(), waited.size(), -1);
    if (waited[1].revents != 0) return;
    std::array<uffd_msg, 16> messages;
    const auto size = ::read(handover_.uffd.get(), messages.data(), sizeof messages);
    if (size <= 0) continue;
    for (std::size_t i = 0; i < static_cast<std::size_t>(size) / sizeof(uffd_msg); ++i) {
      const std::uint64_t page = messages[i].arg.pagefault.address & ~(std::uint64_t{page_size} - 1);
      write_protect(handover_.uffd.get(), page, page_size, 0);
      faults_.fetch_add(1, std::memory_order_relaxed);
    }
  }
}

}  // namespace coppice::bench
