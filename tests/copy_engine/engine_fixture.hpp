// A copy engine with a synthetic VM attached, or several: what its tests have in common.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <future>

#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "copy_engine/copy_engine.hpp"
#include "tests/copy_engine/synthetic_vm.hpp"
#include "tests/support/stuck_disk.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {

using testing::synthetic_instant;
using testing::synthetic_shape;
using testing::synthetic_vm;

inline constexpr auto patience = std::chrono::seconds(60);

inline result<void> wait_for(const std::function<void(copy_session::completion)>& step) {
  auto answer = std::make_shared<std::promise<result<void>>>();
  auto future = answer->get_future();
  step([answer](result<void> outcome) { answer->set_value(std::move(outcome)); });
  if (future.wait_for(patience) != std::future_status::ready) return error{errc::deadline_exceeded, 0, "no completion"};
  return future.get();
}

inline void wait_for_abort(copy_session& session) {
  std::promise<void> done;
  session.abort([&done] { done.set_value(); });
  ASSERT_EQ(done.get_future().wait_for(patience), std::future_status::ready);
}

// A branch that is being copied, and its instant.
struct running_branch {
  std::unique_ptr<copy_session> session;
  synthetic_instant instant;
  std::filesystem::path image;
  std::future<result<copy_result>> outcome;
};

// A synthetic VM, attached to an engine, and how it is branched.
struct branched_guest {
  // Forks. REQUIRES: no engine is there yet.
  void boot(const synthetic_shape& shape) { vm = std::make_unique<synthetic_vm>(shape); }
  void attach_to(copy_engine& engine) {
    auto handover = vm->take_handover();
    if (!handover.uffd) GTEST_SKIP() << "no userfaultfd with write-protection here: run as root on Linux 5.19 or later";
    auto attached = engine.attach(std::move(handover), vm->memory());
    ASSERT_TRUE(attached) << attached.error().message();
    memory = std::move(*attached);
    vm->resume();
    ASSERT_TRUE(vm->runs());
  }

  unique_fd make_image(const std::filesystem::path& path) const {
    unique_fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(vm->memory()->size())), 0);
    return fd;
  }

  // Takes the branch's instant and starts its copy.
  running_branch branch(const std::string& name, unique_fd image = {}) {
    running_branch made = prearmed_branch(name);
    vm->pause();
    take_instant(made);
    vm->resume();
    start_copy(made, std::move(image));
    return made;
  }

  // Its parts.
  running_branch prearmed_branch(const std::string& name) {
    running_branch made;
    made.image = dir.path() / name;
    made.session = *memory->begin();
    const auto prearmed = wait_for([&](auto done) { made.session->prearm(std::move(done)); });
    EXPECT_TRUE(prearmed) << prearmed.error().message();
    return made;
  }
  void take_instant(running_branch& of) const {
    of.instant = vm->instant();
    const auto rearmed = wait_for([&](auto done) { of.session->rearm(std::move(done)); });
    EXPECT_TRUE(rearmed) << rearmed.error().message();
  }
  void start_copy(running_branch& of, unique_fd image = {}) const {
    auto promise = std::make_shared<std::promise<result<copy_result>>>();
    of.outcome = promise->get_future();
    of.session->copy(image ? std::move(image) : make_image(of.image),
                     [promise](result<copy_result> outcome) { promise->set_value(std::move(outcome)); });
  }

  void expect_perfect(running_branch& made) const {
    ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
    auto outcome = made.outcome.get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    auto file = *open_file(made.image, O_RDONLY);
    std::vector<std::byte> image(vm->memory()->size());
    ASSERT_TRUE(read_all_at(file.get(), image, 0));
    EXPECT_EQ(vm->count_bad_pages(image, made.instant), 0U);
    auto checksums = checksum_image_file(file.get(), image.size());
    ASSERT_TRUE(checksums);
    EXPECT_EQ(outcome->chunk_checksums, *checksums);
    const copy_summary& summary = outcome->summary;
    EXPECT_EQ(summary.bulk_pages + summary.captured_pages + summary.zero_pages + summary.hole_pages,
              image.size() / page_size);
    EXPECT_EQ(made.session->progress().settled_pages, image.size() / page_size);
  }

  void expect_perfect_on_disk(running_branch& made, const stuck_disk& disk, std::size_t file = 0) const {
    ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
    const auto outcome = made.outcome.get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(vm->count_bad_pages(disk.content(file), made.instant), 0U);
  }

  temp_dir dir;
  std::unique_ptr<synthetic_vm> vm;
  std::unique_ptr<protected_memory> memory;
};

class copy_engine_test : public ::testing::Test, protected branched_guest {
 protected:
  void start(const synthetic_shape& shape, const copy_engine_options& options = {}) {
    stop();
    boot(shape);
    start_engine(options);
    if (!HasFatalFailure()) attach_to(*engine);
  }

  // Its parts: all guests are booted before the engine starts.
  void stop() {
    memory.reset();
    engine.reset();
  }
  void start_engine(const copy_engine_options& options) {
    auto made = create_copy_engine(options);
    ASSERT_TRUE(made) << made.error().message();
    engine = std::move(*made);
  }

  // Waits until `happened`; false if it doesn't in time.
  template <class Condition>
  static bool eventually(Condition happened) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!happened()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      ::sched_yield();
    }
    return true;
  }

  // Branches `count` times at one instant of a paused guest: nothing is captured (that would be written at once), so
  // all but the last MiB has to wait for the limit; another MiB is for the limit's credit.
  void expect_limit(std::uint64_t bytes_per_second, int count) {
    while (vm->steps() < 4 * vm->memory()->size() / page_size) ASSERT_TRUE(vm->runs());  // nearly every page is written
    std::vector<running_branch> branches;
    for (int i = 0; i < count; ++i) branches.push_back(prearmed_branch("limited" + std::to_string(i)));
    vm->pause();
    const auto before = engine->stats().bulk_pages;
    const auto begin = std::chrono::steady_clock::now();
    for (auto& each : branches) {
      take_instant(each);
      start_copy(each);
    }
    for (auto& each : branches) expect_perfect(each);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    vm->resume();
    const auto bytes = (engine->stats().bulk_pages - before) * page_size;
    EXPECT_GE(bytes, vm->memory()->size() / 2);
    EXPECT_GE(took.count(), static_cast<double>(bytes - 2 * mib) / static_cast<double>(bytes_per_second));
  }

  std::unique_ptr<copy_engine> engine;
};

#define START_OR_SKIP(...) \
  start(__VA_ARGS__);      \
  if (IsSkipped() || HasFatalFailure()) return;

}  // namespace coppice
