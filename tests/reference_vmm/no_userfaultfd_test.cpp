// What a machine that refuses userfaultfd(2) is told.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/reference_vmm/vmm_rig.hpp"
#include "vmm/unix_socket.hpp"

namespace coppice::reference {
namespace {

// coppice-vmm behind a filter: it has all that live branching needs but the userfaultfd itself.
struct no_userfaultfd_test : vmm_test {
  void SetUp() override {
    choice_ = on_threads();
    auto host = create_vmm_host({VMM_WITHOUT_USERFAULTFD, dir_.path(), {"--no-kvm"}});
    ASSERT_TRUE(host) << host.error().message();
    host_ = std::move(*host);
  }
};

TEST_F(no_userfaultfd_test, a_handover_is_refused_with_what_to_do_and_the_guest_runs_on) {
  EXPECT_TRUE(host_->capabilities().live()) << "it cannot know before it tries";
  auto vm = boot_on_memfd("vm");
  const auto listening = listen_unix(dir_.path() / "listener");
  ASSERT_TRUE(listening);
  const auto request = api_requests::uffd_wp(dir_.path() / "listener");
  for (const char* advice : {"root", "CAP_SYS_PTRACE", "/dev/userfaultfd", "vm.unprivileged_userfaultfd=1"}) {
    vm->refuses(request, advice);
  }
  expect_advance(memory());
}

TEST_F(no_userfaultfd_test, a_restore_with_pages_on_demand_is_refused_with_what_to_do) {
  auto booted = boot("vm");
  const snapshot base = paths("base");
  booted->must(api_requests::pause());
  booted->must(api_requests::snapshot_full(base.vmstate, base.memory));
  auto child = start("child");
  const auto body = R"({"snapshot_path":")" + base.vmstate.string() +
                    R"(","mem_backend":{"backend_type":"Uffd","backend_path":"/nobody"}})";
  child->refuses({"PUT", "/snapshot/load", body}, "vm.unprivileged_userfaultfd=1");
}

TEST_F(no_userfaultfd_test, a_handover_by_the_device_needs_no_system_call) {
  if (::access("/dev/userfaultfd", R_OK | W_OK) != 0) GTEST_SKIP() << "no access to /dev/userfaultfd (Linux 6.1)";
  ::setenv("UFFD_BY_DEVICE", "1", 1);
  auto vm = boot_on_memfd("vm");
  ::unsetenv("UFFD_BY_DEVICE");
  const auto listening = listen_unix(dir_.path() / "listener");
  ASSERT_TRUE(listening);
  vm->must(api_requests::uffd_wp(dir_.path() / "listener"));
  expect_advance(memory());
}

}  // namespace
}  // namespace coppice::reference
