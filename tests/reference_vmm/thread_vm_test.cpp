// The journal on threads instead of vCPUs: what it writes is a journal, and what is damaged cannot hurt.
#include "reference_vmm/thread_vm.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "base/guest_memory.hpp"
#include "base/units.hpp"
#include "journal_guest/journal_oracle.hpp"

namespace coppice::reference {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t vm_bytes = 64 * mib;

struct thread_vm : ::testing::Test {
  void make(unsigned lanes, const std::string& arguments) {
    auto ram = guest_ram::anonymous(vm_bytes);
    ASSERT_TRUE(ram);
    auto created = make_thread_machine(std::move(*ram), lanes);
    ASSERT_TRUE(created);
    vm = std::move(*created);
    machine_config config;
    config.vcpus = lanes;
    config.boot_args = arguments;
    const auto booted = vm->boot(config);
    ASSERT_TRUE(booted) << booted.error().message();
  }
  std::span<const std::byte> memory() { return vm->memory().regions()[0].bytes; }
  // REQUIRES: paused.
  journal_report report() {
    const auto checked = check_journal_image(memory());
    EXPECT_TRUE(checked) << checked.error().message();
    return checked ? *checked : journal_report{};
  }
  // REQUIRES: paused.
  std::uint64_t step_of_lane(std::uint64_t lane) {
    journal::lane_header header;
    std::memcpy(&header, memory().data() + journal::header_address(lane), sizeof header);
    return header.step;
  }
  // Runs until each lane is `steps` further: a busy host may let one run long before another.
  void run(std::uint64_t steps) {
    std::vector<std::uint64_t> wanted(report().lanes);
    for (std::uint64_t lane = 0; lane < wanted.size(); ++lane) wanted[lane] = step_of_lane(lane) + steps;
    const auto there = [&] {
      for (std::uint64_t lane = 0; lane < wanted.size(); ++lane) {
        if (step_of_lane(lane) < wanted[lane]) return false;
      }
      return true;
    };
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    for (;;) {
      vm->resume();
      std::this_thread::yield();
      vm->pause();
      if (there()) return;
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the journal does not go on";
    }
  }
  // Another machine, with a copy of this one's memory.
  std::unique_ptr<machine> copy(unsigned lanes) {
    auto ram = guest_ram::anonymous(vm_bytes);
    std::memcpy(ram->regions()[0].bytes.data(), memory().data(), vm_bytes);
    auto made = make_thread_machine(std::move(*ram), lanes);
    return std::move(*made);
  }
  std::unique_ptr<machine> vm;
};

TEST_F(thread_vm, memory_is_of_one_instant_at_every_pause_with_one_to_four_lanes) {
  for (unsigned lanes = 1; lanes <= 4; ++lanes) {
    make(lanes, "journal.pages=200");
    if (HasFatalFailure()) return;
    for (int i = 0; i < 10; ++i) {
      run(500);
      const auto found = report();
      ASSERT_TRUE(found.is_journal);
      EXPECT_EQ(found.lanes, lanes);
      EXPECT_EQ(found.pages, lanes * 200U);
      EXPECT_EQ(found.bad_pages(), 0U);
      EXPECT_EQ(found.gaps, 0U);
    }
  }
}

TEST_F(thread_vm, it_goes_on_from_a_saved_state_without_a_gap_and_finds_one_if_memory_is_of_another_instant) {
  make(2, "journal.pages=200");
  run(1000);
  const auto state = vm->save();
  ASSERT_TRUE(state);
  auto same = copy(2);
  ASSERT_TRUE(same->restore(*state));
  run(10);
  auto later = copy(2);
  ASSERT_TRUE(later->restore(*state));
  vm = std::move(same);
  run(1000);
  EXPECT_EQ(report().gaps, 0U);
  EXPECT_EQ(report().bad_pages(), 0U);
  vm = std::move(later);
  run(1000);
  EXPECT_GT(report().gaps, 0U);
}

TEST_F(thread_vm, every_page_that_a_lane_wrote_is_dirty) {
  make(1, "journal.pages=200");
  vm->memory().dirty().clear();
  const std::vector<std::byte> before(memory().begin(), memory().end());
  run(50);
  ASSERT_TRUE(vm->collect_dirty());
  std::uint64_t changed = 0;
  for (std::uint64_t page = 0; page < vm_bytes / page_size; ++page) {
    if (std::memcmp(before.data() + page * page_size, memory().data() + page * page_size, page_size) == 0) continue;
    ++changed;
    EXPECT_TRUE(vm->memory().dirty().test(page)) << page;
  }
  EXPECT_GE(changed, 50U);
}

TEST_F(thread_vm, destruction_ends_it_paused_or_running) {
  make(4, "journal.pages=10");
  vm.reset();
  make(4, "journal.pages=10");
  vm->resume();
  vm.reset();
}

// A lane that waits for its next step must hear a pause as a vCPU does.
TEST_F(thread_vm, a_slow_pace_delays_neither_a_pause_nor_the_end) {
  make(1, "journal.pages=10 journal.pace=999999999999999");
  vm->resume();
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (read_journal(memory())->steps == 0) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  vm->pause();
  EXPECT_EQ(report().steps, 1U);
  vm->resume();
  vm.reset();
}

TEST_F(thread_vm, pace_and_rest_are_kept_also_over_pauses) {
  make(1, "journal.pages=10 journal.rest_us=2000");
  const auto before = std::chrono::steady_clock::now();
  run(10);
  EXPECT_GE(std::chrono::steady_clock::now() - before, 17ms);
  make(1, "journal.pages=10 journal.pace=1000000");
  const auto begin = std::chrono::steady_clock::now();
  run(20);
  EXPECT_GE(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() * tsc_hertz(), 19e6);
}

TEST_F(thread_vm, a_damaged_header_is_refused_before_anything_is_touched) {
  make(2, "journal.pages=200");
  run(10);
  const auto state = vm->save();
  ASSERT_TRUE(state);
  const auto refused = [&](const std::function<void(journal::lane_header&)>& damage) {
    auto other = copy(2);
    damage(*reinterpret_cast<journal::lane_header*>(
        other->memory().at(journal::header_address(1), sizeof(journal::lane_header)).data()));
    const auto restored = other->restore(*state);
    return !restored && restored.error().code == errc::corrupt;
  };
  EXPECT_TRUE(refused([](auto& lane) { lane.magic = 0; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.version = 2; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.pages = 0; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.pages = ~0ULL; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.pages = (1ULL << 52) + 1; })) << "times 4,096 it is 4,096";
  EXPECT_TRUE(refused([](auto& lane) { lane.base = vm_bytes; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.base = ~0ULL - page_size + 1; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.base += 1; })) << "not a page's address";
  EXPECT_TRUE(refused([](auto& lane) { lane.pattern = 9; }));
  EXPECT_TRUE(refused([](auto& lane) { lane.rest_us = ~0ULL; }));
  EXPECT_FALSE(refused([](auto&) {}));
}

TEST_F(thread_vm, a_state_of_fewer_lanes_is_refused) {
  make(1, "journal.pages=200");
  const auto state = vm->save();
  const auto restored = copy(2)->restore(*state);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, errc::corrupt);
}

}  // namespace
}  // namespace coppice::reference
