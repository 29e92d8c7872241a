// A live branch by hand: the steps of docs/design.md's table, without actors, on every VMM.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "copy_engine/copy_engine.hpp"
#include "reference_vmm/memory.hpp"
#include "tests/reference_vmm/vmm_rig.hpp"

namespace coppice::reference {
namespace {

using clock = std::chrono::steady_clock;

struct live_branch_test : each_vmm_test {
  void SetUp() override {
    each_vmm_test::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    start_engine({});
  }

  void start_engine(const copy_engine_options& options) {
    auto made = create_copy_engine(options);
    if (!made) GTEST_SKIP() << "no copy engine here: " << made.error().message();
    engine_ = std::move(*made);
  }

  // Takes over the write-protection of the VM that runs on memory_.
  void protect(test_vmm& vm) {
    std::promise<result<uffd_handover>> received;
    host_->receive_uffd(dir_.path() / "wp.sock", patience,
                        [&](result<uffd_handover> got) { received.set_value(std::move(got)); });
    vm.must(api_requests::uffd_wp(dir_.path() / "wp.sock"));
    auto handover = received.get_future().get();
    ASSERT_TRUE(handover) << handover.error().message();
    regions_ = handover->regions;
    auto attached = engine_->attach(std::move(*handover), memory_);
    ASSERT_TRUE(attached) << attached.error().message();
    protected_ = std::move(*attached);
  }

  static result<void> wait_for(const std::function<void(copy_session::completion)>& step) {
    std::promise<result<void>> answer;
    step([&answer](result<void> outcome) { answer.set_value(std::move(outcome)); });
    return answer.get_future().get();
  }

  // One branch into `into`, while the guest runs; the image is of one instant.
  void branch(test_vmm& vm, const snapshot& into, std::uint64_t lanes) {
    auto session = protected_->begin();
    ASSERT_TRUE(session) << session.error().message();
    const auto prearmed = wait_for([&](auto done) { (*session)->prearm(std::move(done)); });
    ASSERT_TRUE(prearmed) << prearmed.error().message();
    const auto begin = clock::now();
    vm.must(api_requests::pause());
    const auto paused = clock::now();
    vm.must(api_requests::snapshot_vmstate_only(into.vmstate));
    const auto saved = clock::now();
    instant_ = steps(memory());
    const auto rearmed = wait_for([&](auto done) { (*session)->rearm(std::move(done)); });
    const auto armed = clock::now();
    vm.must(api_requests::resume());
    const auto resumed = clock::now();
    ASSERT_TRUE(rearmed) << rearmed.error().message();
    const auto us = [](clock::duration time) {
      return static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
    };
    RecordProperty("pause_us", us(paused - begin));
    RecordProperty("vmstate_us", us(saved - paused));
    RecordProperty("rearm_us", us(armed - saved));
    RecordProperty("resume_us", us(resumed - armed));
    std::printf("pause %d us, VmstateOnly %d us, rearm %d us, resume %d us\n", us(paused - begin), us(saved - paused),
                us(armed - saved), us(resumed - armed));

    auto image = open_file(into.memory, O_CREAT | O_TRUNC | O_RDWR);
    ASSERT_TRUE(image);
    ASSERT_EQ(::ftruncate(image->get(), static_cast<off_t>(memory_->size())), 0);
    std::promise<result<copy_result>> copied;
    (*session)->copy(std::move(*image), [&](result<copy_result> outcome) { copied.set_value(std::move(outcome)); });
    const auto outcome = copied.get_future().get();
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_EQ(expect_perfect(into.memory, lanes).steps, instant_) << "not the instant of the pause";
  }

  void expect_good_child(const snapshot& of) {
    const auto own = load(of.memory, memory_->size());
    auto child = start_on(*own, "child");
    child->must(api_requests::load_snapshot(of.vmstate, memory_path, true, false, true));
    expect_advance({own->data(), own->size()});
  }

  std::unique_ptr<copy_engine> engine_;
  std::vector<memory_region> regions_;
  std::unique_ptr<protected_memory> protected_;
  std::uint64_t instant_ = 0;
};

TEST_P(live_branch_test, branches_of_a_running_guest_of_256_mib_are_of_one_instant_and_their_children_go_on) {
  auto parent = boot_on_memfd("parent", {.vcpus = 2, .memory_mib = 256, .arguments = "journal.pages=8192"});
  protect(*parent);
  if (HasFatalFailure()) return;
  ASSERT_EQ(regions_.size(), 1U);
  for (int i = 0; i < 3 && !HasFatalFailure(); ++i) {
    const snapshot taken = paths("branch" + std::to_string(i));
    branch(*parent, taken, 2);
    expect_good_child(taken);
    expect_advance(memory());
  }
}

TEST_P(live_branch_test, four_vcpus_that_wait_for_bounce_memory_all_the_time_go_on_and_the_image_is_of_one_instant) {
  start_engine({.bounce_bytes = 4 * page_size, .longest_deferral = patience});
  auto parent = boot_on_memfd("parent", {.vcpus = 4, .memory_mib = 64, .arguments = "journal.pages=2048"});
  protect(*parent);
  if (HasFatalFailure()) return;
  for (int i = 0; i < 3 && !HasFatalFailure(); ++i) {
    const snapshot taken = paths("branch" + std::to_string(i));
    branch(*parent, taken, 4);
    expect_good_child(taken);
    expect_advance(memory());
  }
  EXPECT_GT(engine_->stats().deferred_faults, 0U) << "they must have waited";
}

TEST_P(live_branch_test, a_branch_of_a_child_of_a_branch_is_of_one_instant_too) {
  auto parent = boot_on_memfd("parent", {.vcpus = 1, .memory_mib = 64});
  protect(*parent);
  if (HasFatalFailure()) return;
  const snapshot first = paths("first"), second = paths("second");
  branch(*parent, first, 1);
  if (HasFatalFailure()) return;
  protected_.reset();
  memory_ = load(first.memory, memory_->size());
  parent = start_on(*memory_, "child-that-is-parent");
  parent->must(api_requests::load_snapshot(first.vmstate, memory_path, true, false, true));
  protect(*parent);
  if (HasFatalFailure()) return;
  branch(*parent, second, 1);
  expect_good_child(second);
}

// Memory of more than 3.25 GiB lies on both sides of the MMIO gap, which begins at 3.25 GiB in coppice-vmm as in
// Firecracker 1.12, and at 3 GiB in Firecracker 1.16. The memfd is sparse: this costs little.
TEST_P(live_branch_test, a_guest_of_6_gib_in_two_regions_branches_like_a_small_one) {
  constexpr std::uint64_t size = 6144 * mib;
  auto parent = boot_on_memfd("parent", {.vcpus = 2, .memory_mib = size / mib, .arguments = "journal.pages=4096"});
  // Above the gap the guest writes nothing: what is there was there before the branch.
  constexpr std::uint64_t wider_gap_start = 3072 * mib;
  const std::uint64_t marks[] = {wider_gap_start, mmio_gap_start, mmio_gap_start + 16 * mib, size - page_size};
  for (const std::uint64_t at : marks) memory_->data()[at] = std::byte{0x77};
  protect(*parent);
  if (HasFatalFailure()) return;
  ASSERT_EQ(regions_.size(), 2U);
  const bool firecracker = GetParam().variable != nullptr;
  const std::uint64_t below = firecracker && regions_[0].size == wider_gap_start ? wider_gap_start : mmio_gap_start;
  EXPECT_EQ(regions_[0].size, below);
  EXPECT_EQ(regions_[1].size, size - below);
  EXPECT_EQ(regions_[1].file_offset, below);
  for (int i = 0; i < 2 && !HasFatalFailure(); ++i) {
    const snapshot taken = paths("branch");
    branch(*parent, taken, 2);
    auto image = open_file(taken.memory, O_RDONLY);
    ASSERT_TRUE(image);
    for (const std::uint64_t at : marks) {
      std::byte found{};
      ASSERT_TRUE(read_all_at(image->get(), {&found, 1}, at));
      EXPECT_EQ(found, std::byte{0x77}) << at;
    }
    expect_good_child(taken);
    expect_advance(memory());
  }
}

TEST_P(live_branch_test, a_handover_to_nobody_is_refused_and_may_be_tried_again) {
  auto parent = boot_on_memfd("parent", {.vcpus = 1});
  parent->refuses(api_requests::uffd_wp(dir_.path() / "nobody"), "No such file");
  protect(*parent);
  if (HasFatalFailure()) return;
  branch(*parent, paths("branch"), 1);
  protected_.reset();  // gives the uffd up: the next one can be had
  protect(*parent);
  if (HasFatalFailure()) return;
  branch(*parent, paths("branch"), 1);
  expect_advance(memory());
}

INSTANTIATE_TEST_SUITE_P(on, live_branch_test, ::testing::ValuesIn(all_vmms()), name_of);

}  // namespace
}  // namespace coppice::reference
