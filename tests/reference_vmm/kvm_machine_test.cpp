// The machine on KVM itself: pausing, ending, and whether its saved state is all of it.
#include <gtest/gtest.h>
#include <linux/kvm.h>

#include <cstring>
#include <thread>

#include "base/file.hpp"
#include "base/guest_memory.hpp"
#include "base/units.hpp"
#include "journal_guest/journal_oracle.hpp"
#include "reference_vmm/machine.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::reference {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t machine_bytes = 32 * mib;
constexpr std::uint64_t steps_address = 0x300000, wrong_address = 0x300008;

std::uint64_t word(const guest_memory& memory, std::uint64_t address) {
  return *reinterpret_cast<const volatile std::uint64_t*>(memory.data() + address);
}

struct kvm_machine_test : ::testing::Test {
  void SetUp() override {
    if (!kvm_available()) GTEST_SKIP() << "no access to /dev/kvm";
  }
  static std::shared_ptr<guest_memory> fresh_memory() {
    return std::make_shared<guest_memory>(*guest_memory::create("guest", machine_bytes));
  }
  static std::shared_ptr<guest_memory> copy_of(const guest_memory& other) {
    auto made = fresh_memory();
    std::memcpy(made->data(), other.data(), machine_bytes);
    return made;
  }
  static std::unique_ptr<machine> machine_on(const guest_memory& memory, unsigned vcpus) {
    auto ram = guest_ram::from_file("/proc/self/fd/" + std::to_string(memory.fd()), machine_bytes, true);
    EXPECT_TRUE(ram) << ram.error().message();
    auto made = make_machine(true, std::move(*ram), vcpus, false);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  static std::unique_ptr<machine> boot(const guest_memory& memory, const std::string& kernel, unsigned vcpus) {
    auto made = machine_on(memory, vcpus);
    machine_config config;
    config.vcpus = vcpus;
    config.kernel = kernel;
    config.boot_args = "journal.pages=256";
    const auto booted = made->boot(config);
    EXPECT_TRUE(booted) << booted.error().message();
    return made;
  }
  static bool within_deadline(const std::function<bool()>& holds) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }
  // The guest that watches its registers goes on, and all of them are as it left them.
  static void expect_well(const guest_memory& memory) {
    const std::uint64_t before = word(memory, steps_address);
    EXPECT_TRUE(within_deadline(
        [&] { return word(memory, steps_address) >= before + 100 || word(memory, wrong_address) != 0; }));
    EXPECT_EQ(word(memory, wrong_address), 0U) << "see state_guest.S: 1 SSE, 2 x87, 3 and 4 MSRs, 5 debug registers, "
                                                  "6 TSC, 7 memory; after step "
                                               << word(memory, steps_address);
  }
  static void expect_same_msrs(const state_sections::bytes& before, const state_sections::bytes& after) {
    const std::size_t count = before.size() / sizeof(kvm_msr_entry);
    EXPECT_GT(count, 20U);
    for (std::size_t i = 0; i < count; ++i) {
      kvm_msr_entry a{}, b{};
      std::memcpy(&a, before.data() + i * sizeof a, sizeof a);
      std::memcpy(&b, after.data() + i * sizeof b, sizeof b);
      ASSERT_EQ(a.index, b.index);
      const bool counts = a.index == 0x10 || a.index == 0x40000020;  // TSC, and Hyper-V's clock
      EXPECT_TRUE(counts ? b.data >= a.data : b.data == a.data) << std::hex << "MSR 0x" << a.index;
      EXPECT_TRUE(a.index != 0x10 || static_cast<double>(b.data - a.data) < 30 * tsc_hertz()) << "the host's TSC?";
    }
  }
  // A kernel of these bytes of code at 1 MiB.
  std::string kernel_of(const std::string& code);
  temp_dir dir;
};

// ELF64, one segment: header and program header in front of the code.
std::string kvm_machine_test::kernel_of(const std::string& code) {
  std::string file(120, '\0');
  const auto put = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
    std::memcpy(file.data() + at, &value, bytes);
  };
  std::memcpy(file.data(), "\177ELF\2\1\1", 7);
  put(16, 2, 2);
  put(18, 62, 2);        // x86-64
  put(24, 0x100000, 8);  // entry
  put(32, 64, 8);        // program headers
  put(52, 64, 2);
  put(54, 56, 2);
  put(56, 1, 2);
  put(64, 1, 4);         // PT_LOAD
  put(72, 120, 8);       // offset
  put(88, 0x100000, 8);  // physical address
  put(96, code.size(), 8);
  put(104, code.size(), 8);
  const auto path = dir.path() / "kernel";
  EXPECT_TRUE(write_text_file(path, file + code));
  return path.string();
}

TEST_F(kvm_machine_test, all_registers_survive_pauses_saves_and_restores) {
  auto memory = fresh_memory();
  auto vm = boot(*memory, STATE_GUEST, 1);
  vm->resume();
  expect_well(*memory);
  for (int i = 0; i < 10; ++i) {
    vm->pause();
    auto state = vm->save();
    ASSERT_TRUE(state) << state.error().message();
    if (i % 2 == 0) {  // the one that was saved goes on
      vm->resume();
    } else {  // or its child does
      memory = copy_of(*memory);
      vm = machine_on(*memory, 1);
      const auto restored = vm->restore(*state);
      ASSERT_TRUE(restored) << restored.error().message();
      vm->resume();
    }
    expect_well(*memory);
    if (HasFailure()) return;
  }
}

TEST_F(kvm_machine_test, what_is_saved_after_a_restore_is_what_was_restored) {
  for (const unsigned vcpus : {1U, 4U}) {
    auto memory = fresh_memory();
    auto vm = boot(*memory, COPPICE_JOURNAL, vcpus);
    vm->resume();
    ASSERT_TRUE(within_deadline([&] {
      const auto reading = read_journal({memory->data(), machine_bytes});
      return reading && reading->steps > 100;
    }));
    vm->pause();
    const auto state = vm->save();
    ASSERT_TRUE(state);
    auto own = copy_of(*memory);
    auto other = machine_on(*own, vcpus);
    ASSERT_TRUE(other->restore(*state));
    const auto again = other->save();
    ASSERT_TRUE(again);
    ASSERT_EQ(state->all().size(), again->all().size());
    for (const auto& [name, content] : state->all()) {
      const auto* const found = again->find(name);
      ASSERT_NE(found, nullptr) << name;
      ASSERT_EQ(content.size(), found->size()) << name;
      if (name.ends_with(".msrs")) {
        expect_same_msrs(content, *found);
      } else if (name.ends_with(".lapic")) {
        auto before = content, after = *found;
        for (std::size_t byte = 0x390; byte < 0x394; ++byte) before[byte] = after[byte] = {};  // the timer counts down
        EXPECT_TRUE(before == after) << name;
      } else if (name == "clock") {
        const auto before = *state->get_struct<kvm_clock_data>(name), after = *again->get_struct<kvm_clock_data>(name);
        EXPECT_GE(after.clock, before.clock) << "guest time goes on from where it was";
        EXPECT_LT(after.clock, before.clock + 30'000'000'000);
      } else if (name != "pit") {  // it holds a time of the host
        EXPECT_TRUE(content == *found) << name;
      }
    }
  }
}

TEST_F(kvm_machine_test, hundreds_of_pauses_at_any_moment_lose_no_vcpu_and_no_step) {
  auto memory = fresh_memory();
  auto vm = boot(*memory, COPPICE_JOURNAL, 4);
  for (int i = 0; i < 300; ++i) {
    vm->resume();
    if (i % 3 == 0) std::this_thread::yield();
    if (i % 100 == 0) std::this_thread::sleep_for(1ms);  // let it get somewhere between the pauses
    vm->pause();
    if (i % 7 == 0) vm->pause();
    const std::uint64_t before = word(*memory, journal::header_address(0) + offsetof(journal::lane_header, step));
    if (i % 50 == 0) std::this_thread::yield();
    ASSERT_EQ(word(*memory, journal::header_address(0) + offsetof(journal::lane_header, step)), before);
  }
  vm->resume();
  ASSERT_TRUE(within_deadline([&] {
    std::uint64_t lanes = 0;
    for (std::uint64_t lane = 0; lane < 4; ++lane) {
      lanes += word(*memory, journal::header_address(lane) + offsetof(journal::lane_header, step)) > 300 ? 1 : 0;
    }
    return lanes == 4;
  }));
  vm->pause();
  const auto report = check_journal_image(std::span<const std::byte>(memory->data(), machine_bytes));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->bad_pages(), 0U);
  EXPECT_EQ(report->gaps, 0U);
}

// cli; hlt; jmp -3
TEST_F(kvm_machine_test, a_guest_that_halts_for_ever_pauses_resumes_and_ends) {
  auto memory = fresh_memory();
  auto vm = boot(*memory, kernel_of("\xfa\xf4\xeb\xfd"), 2);
  for (int i = 0; i < 20; ++i) {
    vm->resume();
    if (i % 2 == 0) std::this_thread::sleep_for(1ms);  // halted, or just about to
    vm->pause();
  }
  const auto state = vm->save();
  ASSERT_TRUE(state) << state.error().message();
  auto other = machine_on(*memory, 2);
  ASSERT_TRUE(other->restore(*state));
  other->resume();
  other->pause();
  vm->resume();
}

// mov $0x10000000, %eax; again: incl (0x300000); mov (%rax), %ebx; inc %ebx; mov %ebx, (%rax); jmp again
// Reads of where no RAM is are exits for MMIO: a pause may come between the read and its completion.
TEST_F(kvm_machine_test, an_mmio_read_that_a_pause_interrupts_is_completed_before_the_state_is_saved) {
  using namespace std::string_literals;
  const std::string code =
      "\xb8\x00\x00\x00\x10"                            // mov $0x10000000, %eax
      "\xff\x04\x25\x00\x00\x30\x00"                    // again: incl 0x300000
      "\x31\xdb"                                        // xor %ebx, %ebx
      "\x8b\x18"                                        // mov (%rax), %ebx
      "\x83\xfb\xff"                                    // cmp $-1, %ebx
      "\x75\x02"                                        // jne bad
      "\xeb\xee"                                        // jmp again
      "\x89\x1c\x25\x08\x00\x30\x00\xfa\xf4\xeb\xfc"s;  // bad: mov %ebx, 0x300008; cli; hlt; jmp
  auto memory = fresh_memory();
  memory->data()[wrong_address] = std::byte{0};
  auto vm = boot(*memory, kernel_of(code), 1);
  for (int i = 0; i < 15; ++i) {
    vm->resume();
    std::this_thread::yield();
    vm->pause();
    const auto state = vm->save();
    ASSERT_TRUE(state);
    memory = copy_of(*memory);
    vm = machine_on(*memory, 1);
    ASSERT_TRUE(vm->restore(*state));
  }
  vm->resume();
  const std::uint64_t before = word(*memory, steps_address);
  EXPECT_TRUE(within_deadline([&] { return word(*memory, steps_address) > before + 100; }));
  EXPECT_EQ(word(*memory, wrong_address), 0U);
}

// An exit for OUT is completed by the next KVM_RUN only: saved before that, the child would print the byte again.
TEST_F(kvm_machine_test, a_byte_on_the_serial_port_is_neither_lost_nor_doubled_by_a_pause_and_a_restore) {
  using namespace std::string_literals;
  const std::string code =
      "\xb8\x61\x00\x00\x00"          // mov $'a', %eax
      "\xba\xf8\x03\x00\x00"          // mov $0x3f8, %edx
      "\xee"                          // again: out %al, (%dx)
      "\xff\x04\x25\x00\x00\x30\x00"  // incl 0x300000
      "\xfe\xc0\x3c\x7b\x75\xf2"      // inc %al; cmp $'{', %al; jne again
      "\xb0\x61\xeb\xee"s;            // mov $'a', %al; jmp again
  auto memory = fresh_memory();
  auto vm = boot(*memory, kernel_of(code), 1);
  ::testing::internal::CaptureStdout();
  for (int i = 0; i < 15; ++i) {
    const std::uint64_t before = word(*memory, steps_address);
    vm->resume();
    EXPECT_TRUE(within_deadline([&] { return word(*memory, steps_address) >= before + 5; }));
    vm->pause();
    const auto state = vm->save();
    memory = copy_of(*memory);
    vm = machine_on(*memory, 1);
    const auto restored = vm->restore(*state);
    EXPECT_TRUE(restored) << restored.error().message();
  }
  std::string printed = ::testing::internal::GetCapturedStdout();
  ASSERT_GE(printed.size(), 75U);
  EXPECT_LE(printed.size() - word(*memory, steps_address), 1U);
  for (std::size_t i = 0; i < printed.size(); ++i) {
    ASSERT_EQ(printed[i], static_cast<char>('a' + i % 26)) << "byte " << i << " of " << printed;
  }
}

TEST_F(kvm_machine_test, it_ends_paused_running_or_never_started) {
  for (int i = 0; i < 10; ++i) {
    auto memory = fresh_memory();
    auto vm = boot(*memory, COPPICE_JOURNAL, 4);
    if (i % 3 == 0) continue;
    vm->resume();
    if (i % 3 == 1) continue;
    vm->pause();
  }
}

TEST_F(kvm_machine_test, a_state_of_another_number_of_vcpus_or_of_threads_is_refused) {
  auto memory = fresh_memory();
  auto vm = boot(*memory, COPPICE_JOURNAL, 1);
  auto state = vm->save();
  ASSERT_TRUE(state);
  const auto more = machine_on(*memory, 2)->restore(*state);
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, errc::corrupt) << more.error().message();
  state_sections threads;
  threads.set_struct("thread0", std::uint64_t{1});
  EXPECT_FALSE(machine_on(*memory, 1)->restore(threads));
}

}  // namespace
}  // namespace coppice::reference
