// A process that behaves like a VMM with a guest that writes: its RAM is a memfd of ours, it registers a userfaultfd
// for it and hands it over. A process of its own, because uffd acts on the address space of its creator, and because
// the guest's writes are meant to be invisible to the sanitizers of the engine, as a real guest's are.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/guest_memory.hpp"

namespace coppice::testing {

// One vCPU, as it were. A step of writer w is: the next page of its sequence gets the step's number in its words w and
// -1 - w. So all writers write to all pages, two may fault on one page at once, and no word is written by two.
struct alignas(64) synthetic_writer {
  std::atomic<std::uint32_t> paused;  // the pause that the writer has entered
  std::atomic<std::uint64_t> steps;
  std::atomic<std::chrono::nanoseconds::rep> longest_gap;  // between two steps, pauses not counted
};

inline constexpr std::size_t most_writers = 128;

// What the processes share beside RAM. Writers pause between two steps when told to.
struct synthetic_control {
  std::atomic<std::uint32_t> asked;      // the latest pause that was asked for: they are numbered
  std::atomic<std::uint32_t> released;   // the pause that is over
  std::atomic<std::uint64_t> ask_after;  // the step after which a writer asks for a pause itself
  synthetic_writer writers[most_writers];
};

// The steps that each writer has done.
using synthetic_instant = std::vector<std::uint64_t>;

// What a synthetic VM is like.
struct synthetic_shape {
  std::size_t pages;
  std::size_t split = 0;  // RAM is cut in two regions at this page, unless it is 0
  std::size_t busy = 0;   // the guest writes to the last so many pages only; 0: to all
  std::size_t writers = 1;
  bool sequential = false;  // each writer goes through its pages in their order; else all over them
};

// A fixed pseudo-random sequence over `pages`, another one for each writer.
inline std::size_t page_of_step(std::uint64_t step, std::size_t pages, std::size_t writer) {
  std::uint64_t x = (step + (static_cast<std::uint64_t>(writer) << 40)) * 0x9e3779b97f4a7c15ULL;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 32;
  return static_cast<std::size_t>(x % pages);
}

class synthetic_vm {
 public:
  // Forks; the guest is paused. REQUIRES: this process has no other threads (ThreadSanitizer lets the child of one that
  // has start none).
  explicit synthetic_vm(const synthetic_shape& shape)
      : pages_(shape.pages),
        busy_(shape.busy != 0 ? shape.busy : shape.pages),
        writers_(shape.writers),
        sequential_(shape.sequential) {
    EXPECT_LE(writers_, most_writers);
    memory_ = std::make_shared<guest_memory>(*guest_memory::create("synthetic", pages_ * page_size));
    void* shared =
        ::mmap(nullptr, sizeof(synthetic_control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    control_ = new (shared) synthetic_control{};
    control_->asked = 1;
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    unique_fd ours(ends[0]), theirs(ends[1]);
    child_ = ::fork();
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      run_child(theirs.get(), shape.split);
    }
    theirs.reset();
    receive(ours.get());
  }

  ~synthetic_vm() {
    kill();
    ::munmap(control_, sizeof(synthetic_control));
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

  synthetic_instant instant() const {
    synthetic_instant now;
    for (const synthetic_writer& writer : writers()) now.push_back(writer.steps.load());
    return now;
  }
  // Of all writers together.
  std::uint64_t steps() const {
    const auto now = instant();
    return std::accumulate(now.begin(), now.end(), std::uint64_t{0});
  }

  void pause() { wait_for_pause(++control_->asked); }
  // Lets the guest do so many steps and no more, whoever has the CPUs. REQUIRES: it is paused, and has one writer.
  void run_for(std::uint64_t steps) {
    control_->ask_after = this->steps() + steps;
    const std::uint32_t number = control_->asked.load() + 1;
    resume();
    wait_for_pause(number);
  }
  void resume() {
    control_->released.store(control_->asked.load());
    futex(FUTEX_WAKE, std::numeric_limits<int>::max());
  }
  // False if a writer makes no progress: it is stuck.
  bool runs() const {
    auto wanted = instant();
    for (std::uint64_t& steps : wanted) steps += 1000 / writers_;
    const auto deadline = std::chrono::steady_clock::now() + progress_deadline;
    for (std::size_t i = 0; i < writers_; ++i) {
      while (control_->writers[i].steps.load() < wanted[i]) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        ::sched_yield();
      }
    }
    return true;
  }

  // Whether a write to the page would fault, as the kernel tells (proc_pid_pagemap(5), bit 57).
  bool is_protected(std::size_t page) const {
    const auto region = std::find_if(regions_.rbegin(), regions_.rend(),
                                     [&](const memory_region& each) { return each.file_offset <= page * page_size; });
    const std::uint64_t address = region->host_address + (page * page_size - region->file_offset);
    const unique_fd pagemap(::open(("/proc/" + std::to_string(child_) + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
    std::uint64_t entry = 0;
    const auto offset = static_cast<off_t>(address / page_size * sizeof entry);
    EXPECT_EQ(::pread(pagemap.get(), &entry, sizeof entry, offset), static_cast<ssize_t>(sizeof entry));
    return (entry >> 57 & 1) != 0;
  }

  // The longest time that a writer took from one step to the next since the last call.
  // REQUIRES: runs() since what is to be measured: a step that is still waited for is not counted.
  std::chrono::nanoseconds take_longest_gap() {
    std::chrono::nanoseconds longest{0};
    for (synthetic_writer& writer : writers())
      longest = std::max(longest, std::chrono::nanoseconds(writer.longest_gap.exchange(0)));
    return longest;
  }

  // The pages of `image` that are not as they were at that instant.
  std::size_t count_bad_pages(std::span<const std::byte> image, const synthetic_instant& instant) const {
    std::vector<bool> is_bad(pages_);
    for (std::size_t writer = 0; writer < writers_; ++writer) {
      const auto expected = last_steps(writer, instant[writer]);
      for (std::size_t page = 0; page < pages_; ++page) {
        const auto* words = reinterpret_cast<const std::uint64_t*>(image.data() + page * page_size);
        if (words[writer] != expected[page] || words[page_words - 1 - writer] != expected[page]) is_bad[page] = true;
      }
    }
    return static_cast<std::size_t>(std::count(is_bad.begin(), is_bad.end(), true));
  }

 private:
  static constexpr auto progress_deadline = std::chrono::seconds(60);
  static constexpr std::size_t page_words = page_size / sizeof(std::uint64_t);

  void wait_for_pause(std::uint32_t number) const {
    const auto deadline = std::chrono::steady_clock::now() + progress_deadline;
    for (const synthetic_writer& writer : writers()) {
      while (writer.paused.load() != number) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the guest does not pause: is it stuck in a fault?";
        ::sched_yield();
      }
    }
  }

  std::span<synthetic_writer> writers() const { return {control_->writers, writers_}; }

  std::size_t page_written_at(std::uint64_t step, std::size_t writer) const {
    return pages_ - busy_ + (sequential_ ? step % busy_ : page_of_step(step, busy_, writer));
  }

  // What the writer has last written to each page when it has done `step` steps.
  std::vector<std::uint64_t> last_steps(std::size_t writer, std::uint64_t step) const {
    std::vector<std::uint64_t> last(pages_, 0);
    std::size_t unknown = busy_;
    for (; step > 0 && unknown > 0; --step) {
      std::uint64_t& page = last[page_written_at(step, writer)];
      if (page != 0) continue;
      page = step;
      --unknown;
    }
    return last;
  }

  // On `released`. Not std::atomic's wait: its futexes are of one process.
  void futex(int operation, std::uint32_t value) const {
    ::syscall(SYS_futex, &control_->released, operation, value, nullptr, nullptr, 0);
  }

  [[noreturn]] void write(std::byte* ram, std::size_t number) {
    using clock = std::chrono::steady_clock;
    synthetic_writer& self = control_->writers[number];
    auto before = clock::now();
    for (std::uint64_t step = 1;; ++step) {
      for (;;) {
        const std::uint32_t released = control_->released.load(), asked = control_->asked.load();
        if (asked == released) break;
        self.paused.store(asked);
        futex(FUTEX_WAIT, released);
        before = clock::now();
      }
      auto* const words = reinterpret_cast<volatile std::uint64_t*>(ram + page_written_at(step, number) * page_size);
      words[number] = step;
      words[page_words - 1 - number] = step;
      const auto now = clock::now();
      const auto gap = std::chrono::nanoseconds(now - std::exchange(before, now)).count();
      if (gap > self.longest_gap.load(std::memory_order_relaxed)) self.longest_gap.store(gap);
      self.steps.store(step);
      if (step == control_->ask_after.load(std::memory_order_relaxed)) ++control_->asked;
    }
  }

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
    std::vector<std::thread> others;
    for (std::size_t writer = 1; writer < writers_; ++writer)
      others.emplace_back([this, ram, writer] { write(ram, writer); });
    write(ram, 0);
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
    regions_.assign(regions, regions + static_cast<std::size_t>(length) / sizeof(memory_region));
    handover_.regions = regions_;
  }

  std::size_t pages_, busy_, writers_;
  bool sequential_;
  std::shared_ptr<guest_memory> memory_;
  synthetic_control* control_ = nullptr;
  pid_t child_ = -1;
  uffd_handover handover_;
  std::vector<memory_region> regions_;
};

}  // namespace coppice::testing
