// A process that behaves like a VMM with a guest that writes: its RAM is a memfd of ours, it registers a userfaultfd
// for it and hands it over. A process of its own, because uffd acts on the address space of its creator, and because
// the guest's writes are meant to be invisible to the sanitizers of the engine, as a real guest's are.
#pragma once

#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/guest_memory.hpp"

namespace coppice::testing {

// What the processes share beside RAM. Word i of the journal: the step at which the guest is. A write is: page p(step)
// gets `step` in its first and last word. The guest pauses between two steps when told to.
struct synthetic_control {
  std::atomic<std::uint32_t> asked;     // the latest pause that was asked for: they are numbered
  std::atomic<std::uint32_t> paused;    // the pause that the guest has entered
  std::atomic<std::uint32_t> released;  // the pause that is over
  std::atomic<std::uint64_t> steps;
};

// p(step): a fixed pseudo-random sequence over `pages`; the first pass fills all but every 16th page, which stay holes
// a while.
inline std::size_t page_of_step(std::uint64_t step, std::size_t pages) {
  std::uint64_t x = step * 0x9e3779b97f4a7c15ULL;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 32;
  return static_cast<std::size_t>(x % pages);
}

class synthetic_vm {
 public:
  // Forks. REQUIRES: called before this process starts threads. `pages` of RAM, cut in two regions at `split` if it is
  // not 0. The guest writes to the last `busy` ones only, if that is not 0.
  explicit synthetic_vm(std::size_t pages, std::size_t split = 0, std::size_t busy = 0)
      : pages_(pages), busy_(busy != 0 ? busy : pages) {
    memory_ = std::make_shared<guest_memory>(*guest_memory::create("synthetic", pages * page_size));
    void* shared = ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    control_ = new (shared) synthetic_control{};
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    unique_fd ours(ends[0]), theirs(ends[1]);
    child_ = ::fork();
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      run_child(theirs.get(), split);
    }
    theirs.reset();
    receive(ours.get());
  }

  ~synthetic_vm() {
    kill();
    ::munmap(control_, page_size);
  }

  void kill() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
      child_ = -1;
    }
  }

  const std::shared_ptr<guest_memory>& memory() const { return memory_; }
  uffd_handover take_handover() { return std::move(handover_); }
  std::uint64_t steps() const { return control_->steps.load(); }

  void pause() {
    const std::uint32_t number = ++control_->asked;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (control_->paused.load() != number) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the guest does not pause: is it stuck in a fault?";
      ::sched_yield();
    }
  }
  void resume() { control_->released.store(control_->asked.load()); }
  // False if the guest makes no progress: it is stuck.
  bool runs() const {
    const std::uint64_t before = steps();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (steps() < before + 1000) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      ::sched_yield();
    }
    return true;
  }

  // The pages of `image` that are not as they were when the guest had done `step` steps.
  std::size_t count_bad_pages(std::span<const std::byte> image, std::uint64_t step) const {
    std::vector<std::uint64_t> expected(pages_, 0);
    std::size_t unknown = pages_;
    for (std::uint64_t n = step; n > 0 && unknown > 0; --n) {  // backwards: the last write of each page counts
      std::uint64_t& page = expected[page_written_at(n)];
      if (page != 0) continue;
      page = n;
      --unknown;
    }
    std::size_t bad = 0;
    for (std::size_t page = 0; page < pages_; ++page) {
      const auto* words = reinterpret_cast<const std::uint64_t*>(image.data() + page * page_size);
      if (words[0] != expected[page] || words[page_size / 8 - 1] != expected[page]) ++bad;
    }
    return bad;
  }

 private:
  std::size_t page_written_at(std::uint64_t step) const { return pages_ - busy_ + page_of_step(step, busy_); }

  [[noreturn]] void run_child(int socket, std::size_t split) {
    std::byte* const ram = static_cast<std::byte*>(
        ::mmap(nullptr, pages_ * page_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_->fd(), 0));
    const int uffd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    uffdio_register registration{};
    registration.range.start = reinterpret_cast<std::uint64_t>(ram);
    registration.range.len = pages_ * page_size;
    registration.mode = UFFDIO_REGISTER_MODE_WP;
    if (uffd < 0 || ::ioctl(uffd, UFFDIO_API, &api) != 0 || ::ioctl(uffd, UFFDIO_REGISTER, &registration) != 0)
      ::_exit(1);
    const std::uint64_t at = reinterpret_cast<std::uint64_t>(ram);
    memory_region regions[2] = {{at, (split != 0 ? split : pages_) * page_size, 0},
                                {at + split * page_size, (pages_ - split) * page_size, split * page_size}};
    iovec data{regions, split != 0 ? sizeof regions : sizeof regions[0]};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &uffd, sizeof uffd);
    if (::sendmsg(socket, &message, 0) < 0) ::_exit(1);
    ::close(uffd);
    for (std::uint64_t step = 1;; ++step) {
      while (control_->asked.load(std::memory_order_relaxed) != control_->released.load(std::memory_order_relaxed)) {
        control_->paused.store(control_->asked.load());
        ::sched_yield();
      }
      auto* const words = reinterpret_cast<volatile std::uint64_t*>(ram + page_written_at(step) * page_size);
      words[0] = step;
      words[page_size / 8 - 1] = step;
      control_->steps.store(step);
    }
  }

  void receive(int socket) {
    memory_region regions[2];
    iovec data{regions, sizeof regions};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    const ssize_t length = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0) return;  // the child could not make a userfaultfd: take_handover() has none
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    handover_.uffd = unique_fd(fd);
    handover_.regions.assign(regions, regions + static_cast<std::size_t>(length) / sizeof(memory_region));
  }

  std::size_t pages_, busy_;
  std::shared_ptr<guest_memory> memory_;
  synthetic_control* control_ = nullptr;
  pid_t child_ = -1;
  uffd_handover handover_;
};

}  // namespace coppice::testing
