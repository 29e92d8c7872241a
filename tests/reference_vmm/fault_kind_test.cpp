// Each kind of --fault does what it says, in the real program: a test of Coppice stands on it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/reference_vmm/vmm_rig.hpp"

namespace coppice::reference {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using ::testing::HasSubstr;

// On KVM and on threads alike.
struct fault_kind_test : vmm_test, ::testing::WithParamInterface<vmm_choice> {
  // A VM that runs, whose faults strike from the first pause on. Null if the test is skipped.
  std::unique_ptr<test_vmm> running_with(std::vector<std::string> faults) {
    std::vector<std::string> arguments;
    for (auto& each : faults) {
      arguments.emplace_back("--fault");
      arguments.push_back(std::move(each));
    }
    use(GetParam());
    if (IsSkipped() || HasFatalFailure()) return nullptr;
    auto first = boot("base");
    first->must(api_requests::pause());
    first->must(api_requests::snapshot_full(base().vmstate, base().memory));
    memory_ = load(base().memory, 64 * mib);
    use(GetParam(), arguments);
    auto vm = start_on(*memory_, "vm");
    vm->must(api_requests::load_snapshot(base().vmstate, memory_path, true, false, true));
    expect_advance(memory());
    return vm;
  }
  snapshot base() const { return paths("base"); }
  bool stands_still() {
    const std::uint64_t before = steps(memory());
    std::this_thread::sleep_for(20ms);  // nothing to wait for: it is to be seen that nothing comes
    return steps(memory()) == before;
  }
  static auto pending_call(test_vmm& vm, const api_request& request) {
    return std::async(std::launch::async, [&vm, request] { return vm.call(request); });
  }
};

TEST_P(fault_kind_test, delay_waits_then_does_it) {
  const auto vm = running_with({"PATCH /vm#1:delay=3000"});
  if (!vm) return;
  const auto begin = clock::now();
  auto answer = pending_call(*vm, api_requests::pause());
  expect_advance(memory());  // the guest runs meanwhile
  EXPECT_LT(clock::now() - begin, 3s) << "this machine is too slow to tell";
  EXPECT_TRUE(answer.get());
  EXPECT_GE(clock::now() - begin, 3s);
  EXPECT_TRUE(stands_still());
  vm->must(api_requests::resume());  // only the first call was struck
  EXPECT_LT(clock::now() - begin, 6s);
}

TEST_P(fault_kind_test, delay_after_does_it_then_waits_before_it_answers) {
  const auto vm = running_with({"PATCH /vm#1:delay-after=3000"});
  if (!vm) return;
  const auto begin = clock::now();
  auto answer = pending_call(*vm, api_requests::pause());
  EXPECT_TRUE(eventually([&] { return stands_still(); }));
  EXPECT_LT(clock::now() - begin, 3s) << "this machine is too slow to tell";
  EXPECT_TRUE(answer.get());
  EXPECT_GE(clock::now() - begin, 3s);
}

TEST_P(fault_kind_test, fail_refuses_and_does_nothing) {
  const auto vm = running_with({"PATCH /vm:fail", "PUT /snapshot/create#2:fail"});
  if (!vm) return;
  vm->refuses(api_requests::pause(), "told to fail by --fault");
  vm->refuses(api_requests::pause(), "told to fail by --fault");
  expect_advance(memory());
  vm->refuses(api_requests::snapshot_vmstate_only(dir_.path() / "s"), "while running");
  vm->refuses(api_requests::snapshot_vmstate_only(dir_.path() / "s"), "told to fail by --fault");
  vm->refuses(api_requests::snapshot_vmstate_only(dir_.path() / "s"), "while running");
}

TEST_P(fault_kind_test, hang_answers_nothing_ever_and_every_later_request_queues_behind_it) {
  const auto vm = running_with({"PATCH /vm#2:hang"});
  if (!vm) return;
  vm->must(api_requests::pause());
  const auto hung = vm->call(api_requests::resume(), 200ms);
  ASSERT_FALSE(hung);
  EXPECT_EQ(hung.error().code, errc::deadline_exceeded);
  EXPECT_TRUE(stands_still()) << "it was not done";
  const auto behind = vm->call(api_requests::describe(), 200ms);
  ASSERT_FALSE(behind);
  EXPECT_EQ(behind.error().code, errc::deadline_exceeded);
  EXPECT_TRUE(vm->runs());
  vm->vmm().kill();
  EXPECT_EQ(vm->exited().signal, SIGKILL);
}

TEST_P(fault_kind_test, exit_ends_the_process_with_code_1_and_the_caller_hears_that_it_is_gone) {
  const auto vm = running_with({"PATCH /vm:exit"});
  if (!vm) return;
  const auto gone = vm->call(api_requests::pause());
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, errc::unavailable) << gone.error().message();
  EXPECT_EQ(vm->exited().describe(), "exit code 1");
}

INSTANTIATE_TEST_SUITE_P(on, fault_kind_test, ::testing::Values(on_kvm(), on_threads()), name_of);

}  // namespace
}  // namespace coppice::reference
