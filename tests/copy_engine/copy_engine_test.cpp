#include "copy_engine/copy_engine.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <future>

#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "tests/copy_engine/synthetic_vm.hpp"
#include "tests/support/stuck_disk.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using testing::synthetic_vm;

constexpr auto patience = std::chrono::seconds(60);

result<void> wait_for(const std::function<void(copy_session::completion)>& step) {
  auto answer = std::make_shared<std::promise<result<void>>>();
  auto future = answer->get_future();
  step([answer](result<void> outcome) { answer->set_value(std::move(outcome)); });
  if (future.wait_for(patience) != std::future_status::ready) return error{errc::deadline_exceeded, 0, "no completion"};
  return future.get();
}

void wait_for_abort(copy_session& session) {
  std::promise<void> done;
  session.abort([&done] { done.set_value(); });
  ASSERT_EQ(done.get_future().wait_for(patience), std::future_status::ready);
}

// A branch that is being copied, and the step of its instant.
struct running_branch {
  std::unique_ptr<copy_session> session;
  std::uint64_t step = 0;
  std::filesystem::path image;
  std::future<result<copy_result>> outcome;
};

class copy_engine_test : public ::testing::Test {
 protected:
  void start(std::size_t pages, std::size_t split = 0, copy_engine_options options = {}) {
    vm = std::make_unique<synthetic_vm>(pages, split);  // forks: before the engine's threads
    auto handover = vm->take_handover();
    if (!handover.uffd) GTEST_SKIP() << "no userfaultfd with write-protection here: run as root on Linux 5.19 or later";
    auto made = create_copy_engine(options);
    ASSERT_TRUE(made) << made.error().message();
    engine = std::move(*made);
    auto attached = engine->attach(std::move(handover), vm->memory());
    ASSERT_TRUE(attached) << attached.error().message();
    memory = std::move(*attached);
    ASSERT_TRUE(vm->runs());
  }

  unique_fd make_image(const std::filesystem::path& path) {
    unique_fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(vm->memory()->size())), 0);
    return fd;
  }

  // Takes the branch's instant and starts its copy.
  running_branch branch(const std::string& name, unique_fd image = {}) {
    running_branch made;
    made.image = dir.path() / name;
    made.session = *memory->begin();
    copy_session& session = *made.session;
    auto prearmed = wait_for([&](auto done) { session.prearm(std::move(done)); });
    EXPECT_TRUE(prearmed) << prearmed.error().message();
    vm->pause();
    made.step = vm->steps();
    auto rearmed = wait_for([&](auto done) { session.rearm(std::move(done)); });
    EXPECT_TRUE(rearmed) << rearmed.error().message();
    vm->resume();
    auto promise = std::make_shared<std::promise<result<copy_result>>>();
    made.outcome = promise->get_future();
    session.copy(image ? std::move(image) : make_image(made.image),
                 [promise](result<copy_result> outcome) { promise->set_value(std::move(outcome)); });
    return made;
  }

  void expect_perfect(running_branch& made) {
    ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
    auto outcome = made.outcome.get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    auto file = *open_file(made.image, O_RDONLY);
    std::vector<std::byte> image(vm->memory()->size());
    ASSERT_TRUE(read_all_at(file.get(), image, 0));
    EXPECT_EQ(vm->count_bad_pages(image, made.step), 0U);
    auto checksums = checksum_image_file(file.get(), image.size());
    ASSERT_TRUE(checksums);
    EXPECT_EQ(outcome->chunk_checksums, *checksums);
    const copy_summary& summary = outcome->summary;
    EXPECT_EQ(summary.bulk_pages + summary.captured_pages + summary.zero_pages + summary.hole_pages,
              image.size() / page_size);
    EXPECT_EQ(made.session->progress().settled_pages, image.size() / page_size);
  }

  // What was written took at least as long as the limit says (less the first piece of each branch, which is free).
  void expect_within_limit(double seconds, std::uint64_t bytes_per_second) {
    const auto written = engine->stats().written_bytes;
    EXPECT_GE(written, mib);
    EXPECT_GE(seconds, 0.8 * static_cast<double>(written) / static_cast<double>(bytes_per_second));
  }

  temp_dir dir;
  std::unique_ptr<synthetic_vm> vm;
  std::unique_ptr<copy_engine> engine;
  std::unique_ptr<protected_memory> memory;
};

#define START_OR_SKIP(...) \
  start(__VA_ARGS__);      \
  if (IsSkipped() || HasFatalFailure()) return;

TEST_F(copy_engine_test, an_image_is_of_one_instant_while_the_guest_writes) {
  START_OR_SKIP(8192);
  for (int i = 0; i < 10; ++i) {
    auto made = branch("image" + std::to_string(i));
    expect_perfect(made);
    EXPECT_TRUE(vm->runs());
  }
  EXPECT_GT(engine->stats().captured_pages, 0U);
  EXPECT_GT(engine->stats().bulk_pages, 0U);
}

TEST_F(copy_engine_test, two_memory_regions_make_one_image) {
  START_OR_SKIP(4096, 1024);
  auto made = branch("image");
  expect_perfect(made);
}

TEST_F(copy_engine_test, overlapping_branches_of_one_guest_each_have_their_own_instant) {
  START_OR_SKIP(8192);
  for (int round = 0; round < 4; ++round) {
    std::vector<running_branch> branches;
    for (int i = 0; i < 4; ++i) branches.push_back(branch("image" + std::to_string(i)));
    for (auto& each : branches) expect_perfect(each);
    EXPECT_TRUE(vm->runs());
  }
}

TEST_F(copy_engine_test, a_small_bounce_pool_delays_faults_but_no_page_is_wrong) {
  START_OR_SKIP(8192, 0, {.bounce_bytes = 4 * page_size, .longest_deferral = patience});
  for (int i = 0; i < 5; ++i) {
    auto made = branch("image" + std::to_string(i));
    expect_perfect(made);
    EXPECT_TRUE(vm->runs());
  }
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(copy_engine_test, an_aborted_branch_leaves_the_guest_unprotected_at_every_stage) {
  START_OR_SKIP(8192);
  for (int stage = 0; stage < 4; ++stage) {
    auto session = *memory->begin();
    if (stage >= 1) {
      ASSERT_TRUE(wait_for([&](auto done) { session->prearm(std::move(done)); }));
    }
    if (stage >= 2) {
      ASSERT_TRUE(wait_for([&](auto done) { session->rearm(std::move(done)); }));
    }
    std::promise<result<copy_result>> outcome;
    if (stage >= 3)
      session->copy(make_image(dir.path() / "image"),
                    [&](result<copy_result> it) { outcome.set_value(std::move(it)); });
    wait_for_abort(*session);
    wait_for_abort(*session);  // idempotent
    if (stage >= 3) {
      auto it = outcome.get_future().get();
      if (!it) {
        EXPECT_EQ(it.error().code, errc::cancelled);
      }
    }
    session.reset();
    EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
    // Unprotected: a thousand steps without a single fault.
    const auto faults = engine->stats().faults;
    EXPECT_TRUE(vm->runs());
    EXPECT_EQ(engine->stats().faults, faults) << "stage " << stage;
  }
  auto made = branch("after");
  expect_perfect(made);
}

TEST_F(copy_engine_test, a_full_disk_fails_the_branch_and_frees_the_guest) {
  START_OR_SKIP(8192);
  unique_fd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  auto made = branch("unused", std::move(full));
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, errc::no_space) << outcome.error().message();
  made.session.reset();
  const auto faults = engine->stats().faults;
  EXPECT_TRUE(vm->runs());
  EXPECT_EQ(engine->stats().faults, faults);
}

TEST_F(copy_engine_test, a_stuck_disk_holds_up_the_copy_and_not_the_guest) {
  START_OR_SKIP(8192);
  stuck_disk disk(vm->memory()->size());
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch("unused", *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(vm->runs());
  EXPECT_EQ(made.outcome.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(vm->count_bad_pages(disk.content(), made.step), 0U);
}

TEST_F(copy_engine_test, a_disk_that_the_guest_would_have_to_wait_for_costs_the_branch_and_not_the_guest) {
  START_OR_SKIP(8192, 0, {.bounce_bytes = 4 * page_size, .longest_deferral = std::chrono::milliseconds(20)});
  stuck_disk disk(vm->memory()->size());
  if (!disk.mounted()) GTEST_SKIP() << "no FUSE here: run as root with /dev/fuse";
  auto made = branch("unused", *open_file(disk.file(), O_RDWR));
  ASSERT_TRUE(disk.wait_for_stuck_write());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(vm->runs());
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (bool unprotected = false; !unprotected;) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the guest must be unprotected, though the disk is stuck";
    const auto faults = engine->stats().faults;
    ASSERT_TRUE(vm->runs());
    unprotected = engine->stats().faults == faults;
  }
  disk.release();
  ASSERT_EQ(made.outcome.wait_for(patience), std::future_status::ready);
  auto outcome = made.outcome.get();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, errc::unavailable) << outcome.error().message();
  made.session.reset();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
}

TEST_F(copy_engine_test, a_limit_of_a_branch_is_kept_and_no_page_is_wrong) {
  START_OR_SKIP(8192, 0, {.branch_bytes_per_second = 64 * mib});
  const auto begin = std::chrono::steady_clock::now();
  auto made = branch("image");
  expect_perfect(made);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  expect_within_limit(took.count(), 64 * mib);
}

TEST_F(copy_engine_test, a_limit_of_the_host_is_shared_by_all_branches) {
  START_OR_SKIP(4096, 0, {.host_bytes_per_second = 64 * mib});
  const auto begin = std::chrono::steady_clock::now();
  std::vector<running_branch> branches;
  for (int i = 0; i < 3; ++i) branches.push_back(branch("image" + std::to_string(i)));
  for (auto& each : branches) expect_perfect(each);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  expect_within_limit(took.count(), 64 * mib);
}

TEST_F(copy_engine_test, a_guest_that_dies_fails_its_branches) {
  START_OR_SKIP(65536);
  auto session = *memory->begin();
  ASSERT_TRUE(wait_for([&](auto done) { session->prearm(std::move(done)); }));
  vm->kill();
  memory.reset();
  auto rearmed = wait_for([&](auto done) { session->rearm(std::move(done)); });
  EXPECT_FALSE(rearmed);
  wait_for_abort(*session);
}

TEST_F(copy_engine_test, steps_out_of_order_are_refused) {
  START_OR_SKIP(1024);
  auto session = *memory->begin();
  EXPECT_EQ(wait_for([&](auto done) { session->rearm(std::move(done)); }).error().code, errc::internal);
  std::promise<result<copy_result>> outcome;
  session->copy(make_image(dir.path() / "image"), [&](result<copy_result> it) { outcome.set_value(std::move(it)); });
  EXPECT_EQ(outcome.get_future().get().error().code, errc::internal);
}

TEST_F(copy_engine_test, too_many_overlapping_branches_are_refused) {
  START_OR_SKIP(1024, 0, {.max_epochs_per_vm = 2});
  auto one = *memory->begin();
  auto two = *memory->begin();
  auto three = memory->begin();
  ASSERT_FALSE(three);
  EXPECT_EQ(three.error().code, errc::unavailable);
  one.reset();
  EXPECT_TRUE(memory->begin());
}

TEST_F(copy_engine_test, regions_that_do_not_match_the_memory_are_refused) {
  vm = std::make_unique<synthetic_vm>(1024);
  engine = *create_copy_engine({});
  auto handover = vm->take_handover();
  if (!handover.uffd) GTEST_SKIP() << "no userfaultfd here";
  handover.regions[0].size -= page_size;
  auto attached = engine->attach(std::move(handover), vm->memory());
  ASSERT_FALSE(attached);
  EXPECT_EQ(attached.error().code, errc::invalid_argument);
}

}  // namespace
}  // namespace coppice
