// Fakes for the engine's parts: protection without a uffd, a queue of writes without io_uring, a VM without a guest.
// The test is every thread there would be.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/worker_pool.hpp"
#include "copy_engine/attached_vm.hpp"
#include "copy_engine/write_operation.hpp"

namespace coppice::testing {

inline constexpr std::uint64_t guest_address = 1ULL << 40;

using outcomes = std::vector<std::optional<errc>>;  // nullopt: success

inline std::optional<errc> code_of(const result<void>& outcome) {
  if (outcome) return std::nullopt;
  return outcome.error().code;
}

// Remembers which pages are protected.
class fake_protection final : public page_protection {
 public:
  result<void> protect(const memory_region& piece) const override {
    if (fails) return *fails;
    for (std::uint64_t at = 0; at < piece.size; at += page_size) pages.insert((piece.file_offset + at) / page_size);
    return {};
  }
  result<void> lift(const memory_region& piece) const override {
    if (fails) return *fails;
    if (before_lift) before_lift(piece);
    for (std::uint64_t at = 0; at < piece.size; at += page_size) pages.erase((piece.file_offset + at) / page_size);
    return {};
  }

  mutable std::set<std::size_t> pages;  // that are protected
  std::optional<error> fails;           // what every call does
  std::function<void(const memory_region&)> before_lift;
};

// A VM that is attached, and its epochs.
class fake_vm {
 public:
  // RAM holds something in every page, `split`: and lies in two regions, cut at this page.
  explicit fake_vm(std::size_t pages, std::size_t split = 0)
      : memory(std::make_shared<guest_memory>(*guest_memory::create("fake_vm", pages * page_size))),
        protection(std::make_shared<fake_protection>()),
        vm(std::make_shared<attached_vm>()) {
    for (std::size_t page = 0; page < pages; ++page) write(page, 1);
    vm->memory = memory;
    vm->protection = protection;
    if (split > 0) vm->regions.push_back({guest_address, split * page_size, 0});
    vm->regions.push_back(
        {guest_address + (pages + split) * page_size, (pages - split) * page_size, split * page_size});
  }

  ~fake_vm() { vm->epochs.clear(); }  // they refer to it
  fake_vm(const fake_vm&) = delete;
  fake_vm& operator=(const fake_vm&) = delete;

  // As the guest would.
  void write(std::size_t page, unsigned char what) { std::memset(content(page), what, page_size); }
  unsigned char* content(std::size_t page) {
    return reinterpret_cast<unsigned char*>(memory->data() + page * page_size);
  }

  std::shared_ptr<memory_epoch> make_epoch() {
    return std::make_shared<memory_epoch>(
        vm, memory, [this] { ++wakeups; },
        [this](const auto& epoch, const error& why) { given_up.emplace_back(epoch, why); });
  }
  // One in that phase, all RAM protected for it.
  std::shared_ptr<memory_epoch> epoch_in(epoch_phase phase) {
    auto epoch = make_epoch();
    epoch->phase = phase;
    epoch->is_touched.assign(epoch->states.size(), false);
    vm->epochs.push_back(epoch);
    for (std::size_t page = 0; page < epoch->states.size(); ++page) protection->pages.insert(page);
    return epoch;
  }

  const std::shared_ptr<guest_memory> memory;
  const std::shared_ptr<fake_protection> protection;
  const std::shared_ptr<attached_vm> vm;
  int wakeups = 0;  // of the copy thread
  std::vector<std::pair<std::shared_ptr<memory_epoch>, error>> given_up;
};

// Keeps what is posted until the test runs it.
class manual_executor final : public executor {
 public:
  void post(std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  std::size_t queued() const override { return tasks_.size(); }
  bool run_one() {
    if (tasks_.empty()) return false;
    const auto task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
    return true;
  }

 private:
  std::deque<std::function<void()>> tasks_;
};

// Keeps writes until the test says what becomes of them.
class fake_queue final : public write_queue {
 public:
  void push(int image, write_operation& operation, bool) override { writes.push_back({image, &operation}); }
  void submit() override {}

  // Of the oldest: `outcome`, without anything written.
  void complete(int outcome) {
    const auto write = writes.front();
    writes.pop_front();
    write.operation->listener->completed(*write.operation, outcome);
  }
  // Writes the oldest; of it, `at_most` bytes.
  void write_one(std::size_t at_most = static_cast<std::size_t>(-1)) {
    const auto [image, operation] = writes.front();
    std::uint64_t offset = operation->offset;
    for (const iovec& part : operation->parts) {
      const std::size_t size = std::min(part.iov_len, at_most);
      EXPECT_EQ(::pwrite(image, part.iov_base, size, static_cast<off_t>(offset)), static_cast<ssize_t>(size));
      offset += size;
      at_most -= size;
    }
    complete(static_cast<int>(offset - operation->offset));
  }
  void write_all() {
    while (!writes.empty()) write_one();
  }

  struct pushed {
    int image;
    write_operation* operation;
  };
  std::deque<pushed> writes;
};

// Notes what has ended.
class fake_listener final : public write_listener {
 public:
  void completed(write_operation& operation, int outcome) override { handle(operation, outcome); }
  std::function<void(write_operation&, int)> handle;
};

inline unique_fd make_memfd(std::uint64_t size) {
  unique_fd fd(::memfd_create("image", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  return fd;
}

}  // namespace coppice::testing
