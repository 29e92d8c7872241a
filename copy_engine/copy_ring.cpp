#include "copy_engine/copy_ring.hpp"

#include <poll.h>

namespace coppice {
namespace {

constexpr unsigned ring_entries = 256;

}  // namespace

result<std::unique_ptr<copy_ring>> copy_ring::create(int wakeup, std::function<void()> woken) {
  std::unique_ptr<copy_ring> made(new copy_ring(wakeup, std::move(woken)));
  if (const int code = ::io_uring_queue_init(ring_entries, &made->ring_, 0); code < 0) {
    made->ring_.ring_fd = -1;
    return error{errc::unsupported, -code, "io_uring_queue_init (is /proc/sys/kernel/io_uring_disabled 0?)"};
  }
  made->listen_for_wakeup();
  return made;
}

copy_ring::~copy_ring() {
  if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
}

io_uring_sqe* copy_ring::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
  while (entry == nullptr) {  // the submission queue is full: hand it over
    ::io_uring_submit(&ring_);
    entry = ::io_uring_get_sqe(&ring_);
  }
  return entry;
}

void copy_ring::listen_for_wakeup() {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_poll_add(entry, wakeup_, POLLIN);
  ::io_uring_sqe_set_data(entry, nullptr);
}

void copy_ring::push(int image, write_operation& operation, bool by_worker) {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_writev(entry, image, operation.parts.data(), static_cast<unsigned>(operation.parts.size()),
                         operation.offset);
  if (by_worker) ::io_uring_sqe_set_flags(entry, IOSQE_ASYNC);
  ::io_uring_sqe_set_data(entry, &operation);
}

void copy_ring::submit() {
  ::io_uring_submit(&ring_);
}

void copy_ring::wait(std::optional<std::chrono::nanoseconds> at_most) {
  io_uring_cqe* completion = nullptr;
  if (!at_most || at_most->count() == 0) {
    ::io_uring_submit_and_wait(&ring_, at_most ? 0 : 1);
  } else {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(*at_most);
    __kernel_timespec timeout{seconds.count(), (*at_most - seconds).count()};
    ::io_uring_submit_and_wait_timeout(&ring_, &completion, 1, &timeout, nullptr);  // -ETIME: the time is up
  }
  while (::io_uring_peek_cqe(&ring_, &completion) == 0) handle(completion);
}

void copy_ring::handle(io_uring_cqe* completion) {
  auto* const operation = static_cast<write_operation*>(::io_uring_cqe_get_data(completion));
  const int outcome = completion->res;
  ::io_uring_cqe_seen(&ring_, completion);
  if (operation == nullptr) {
    woken_();
    return listen_for_wakeup();
  }
  operation->listener->completed(*operation, outcome);
}

}  // namespace coppice
