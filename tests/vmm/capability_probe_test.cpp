#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <future>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/api_requests.hpp"
#include "vmm/local_vmm_host.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

struct local_vmm_host_test : testing::Test {
  result<std::unique_ptr<vmm_host>> fake_host(const std::string& kind) {
    return create_vmm_host({VMM_TEST_CHILD, dir.path(), {"vmm", kind}});
  }
  result<std::unique_ptr<running_vmm>> start(vmm_host& host, std::promise<exit_status>& exited, bool live = false) {
    return host.start({"vm_1", dir.path() / "api", dir.path() / "log", live},
                      [&exited](exit_status status) { exited.set_value(status); });
  }
  // Asks until the process listens.
  result<api_reply> ask(running_vmm& vmm, const api_request& request) {
    const auto until = std::chrono::steady_clock::now() + 20s;
    for (;;) {
      std::promise<result<api_reply>> answered;
      vmm.api().call(request, 5s, [&](result<api_reply> reply) { answered.set_value(std::move(reply)); });
      auto reply = answered.get_future().get();
      if (reply || reply.error().code != errc::unavailable || std::chrono::steady_clock::now() > until) return reply;
      std::this_thread::sleep_for(1ms);
    }
  }
  // What a VMM that was started and has answered says of its arguments, after those of the VMMs before.
  std::string arguments_of_vmm(vmm_host& host, bool live) {
    std::promise<exit_status> exited;
    const auto vmm = start(host, exited, live);
    EXPECT_TRUE(vmm && ask(**vmm, api_requests::describe()));
    const auto log = read_text_file(dir.path() / "log");
    EXPECT_TRUE(log);
    return log ? *log : std::string();
  }
  void no_child_is_left() {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }
  temp_dir dir;
};

TEST_F(local_vmm_host_test, an_unpatched_vmm_is_known_by_its_refusals) {
  const auto host = fake_host("stock");
  ASSERT_TRUE(host) << host.error().message();
  const auto& found = (*host)->capabilities();
  EXPECT_EQ(found.app_name, "fake");
  EXPECT_EQ(found.version, "9.8.7");
  EXPECT_FALSE(found.live());
  EXPECT_EQ(found.missing_for_live(), "snapshot type VmstateOnly, mem_backend.shared, PUT /uffd/wp");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path())) << "the probe cleans up";
  no_child_is_left();
}

TEST_F(local_vmm_host_test, a_patched_vmm_can_do_all) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host) << host.error().message();
  EXPECT_TRUE((*host)->capabilities().live());
  EXPECT_EQ((*host)->capabilities().missing_for_live(), "");
}

TEST_F(local_vmm_host_test, a_binary_that_is_none_is_named_with_the_flag_that_sets_it) {
  const auto missing = create_vmm_host({dir.path() / "none", dir.path(), {}});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, errc::not_found);
  EXPECT_THAT(missing.error().context, HasSubstr((dir.path() / "none").string()));
  EXPECT_THAT(missing.error().context, HasSubstr("--vmm"));
  ASSERT_TRUE(write_text_file(dir.path() / "text", "x"));
  const auto text = create_vmm_host({dir.path() / "text", dir.path(), {}});
  ASSERT_FALSE(text);
  EXPECT_THAT(text.error().context, HasSubstr("can't be executed"));
  const auto folder = create_vmm_host({dir.path(), dir.path(), {}});
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().context, HasSubstr("not a file"));
}

TEST_F(local_vmm_host_test, a_vmm_that_ends_at_once_is_an_error_with_its_last_words) {
  const auto host = create_vmm_host({VMM_TEST_CHILD, dir.path(), {"nonsense"}});
  ASSERT_FALSE(host);
  EXPECT_THAT(host.error().context, HasSubstr("exit code 64"));
  EXPECT_THAT(host.error().context, HasSubstr("no such role: nonsense"));
}

TEST_F(local_vmm_host_test, the_process_gets_its_socket_its_id_and_no_seccomp_only_when_live) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host);
  for (const bool live : {false, true}) {
    const auto log = arguments_of_vmm(**host, live);
    EXPECT_THAT(log, HasSubstr("arg --api-sock\narg " + (dir.path() / "api").string() + "\narg --id\narg vm-1\n"));
    EXPECT_EQ(log.find("--no-seccomp") != std::string::npos, live);
    EXPECT_EQ(log.find("--seccomp-filter"), std::string::npos);
  }
}

TEST_F(local_vmm_host_test, a_live_vmm_gets_the_seccomp_filter_that_there_is_for_it) {
  const auto host = create_vmm_host({VMM_TEST_CHILD, dir.path(), {"vmm", "patched"}, {}, {}, "/some/filter"});
  ASSERT_TRUE(host);
  for (const bool live : {false, true}) {
    const auto log = arguments_of_vmm(**host, live);
    EXPECT_EQ(log.find("arg --seccomp-filter\narg /some/filter\n") != std::string::npos, live);
    EXPECT_EQ(log.find("--no-seccomp"), std::string::npos);
  }
}

TEST_F(local_vmm_host_test, an_exit_is_told_once_with_how_it_came) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host);
  for (const auto& [path, expected] :
       {std::pair("/exit", "exit code 7"), std::pair("/abort", "signal 15 (Terminated)")}) {
    std::promise<exit_status> exited;
    const auto vmm = start(**host, exited);
    ASSERT_TRUE(vmm);
    ASSERT_TRUE(ask(**vmm, api_requests::describe()));
    (*vmm)->api().call({"PUT", path, "{}"}, 5s, [](const result<api_reply>&) {});
    EXPECT_EQ(exited.get_future().get().describe(), expected);
    (*vmm)->kill();  // nobody there: harmless
  }
  no_child_is_left();
}

TEST_F(local_vmm_host_test, kill_is_told_like_any_other_exit) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host);
  std::promise<exit_status> exited;
  const auto vmm = start(**host, exited);
  ASSERT_TRUE(vmm);
  EXPECT_GT((*vmm)->pid(), 0);
  (*vmm)->kill();
  (*vmm)->kill();
  EXPECT_EQ(exited.get_future().get().signal, SIGKILL);
}

TEST_F(local_vmm_host_test, destruction_kills_reaps_and_tells_nobody) {
  auto host = fake_host("patched");
  ASSERT_TRUE(host);
  std::promise<exit_status> exited;
  auto vmm = start(**host, exited);
  ASSERT_TRUE(vmm);
  host->reset();  // a VMM outlives its host
  EXPECT_TRUE(ask(**vmm, api_requests::describe()));
  vmm->reset();
  no_child_is_left();
  EXPECT_EQ(exited.get_future().wait_for(0ms), std::future_status::timeout);
}

TEST_F(local_vmm_host_test, the_exit_callback_may_destroy_the_vmm) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host);
  std::promise<void> done;
  std::unique_ptr<running_vmm> vmm;
  std::promise<void> stored;
  auto ready = stored.get_future().share();
  auto started = (*host)->start({"x", dir.path() / "api", dir.path() / "log", false}, [&](exit_status) {
    ready.wait();
    vmm.reset();
    done.set_value();
  });
  ASSERT_TRUE(started);
  vmm = std::move(*started);
  stored.set_value();
  vmm->kill();
  EXPECT_EQ(done.get_future().wait_for(20s), std::future_status::ready);
}

TEST_F(local_vmm_host_test, a_socket_path_that_is_too_long_is_refused_before_the_start) {
  const auto host = fake_host("patched");
  ASSERT_TRUE(host);
  const auto vmm =
      (*host)->start({"x", dir.path() / std::string(120, 'x'), dir.path() / "log", false}, [](exit_status) {});
  ASSERT_FALSE(vmm);
  EXPECT_EQ(vmm.error().code, errc::invalid_argument);
}

// With real binaries, named by the environment.
struct real_firecracker_test : local_vmm_host_test {
  std::unique_ptr<vmm_host> host_of(const char* variable) {
    const auto* binary = std::getenv(variable);
    if (binary == nullptr) return nullptr;
    auto host = create_vmm_host({binary, dir.path(), {}});
    EXPECT_TRUE(host) << host.error().message();
    return host ? std::move(*host) : nullptr;
  }
};

TEST_F(real_firecracker_test, a_stock_firecracker_lacks_what_live_needs) {
  if (std::getenv("COPPICE_FIRECRACKER_STOCK") == nullptr) GTEST_SKIP() << "COPPICE_FIRECRACKER_STOCK is not set";
  const auto host = host_of("COPPICE_FIRECRACKER_STOCK");
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->capabilities().app_name, "Firecracker");
  EXPECT_THAT(host->capabilities().version, HasSubstr("1."));
  EXPECT_EQ(host->capabilities().missing_for_live(), "snapshot type VmstateOnly, mem_backend.shared, PUT /uffd/wp");
}

TEST_F(real_firecracker_test, a_patched_firecracker_can_do_all) {
  if (std::getenv("COPPICE_FIRECRACKER") == nullptr) GTEST_SKIP() << "COPPICE_FIRECRACKER is not set";
  const auto host = host_of("COPPICE_FIRECRACKER");
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->capabilities().app_name, "Firecracker");
  EXPECT_EQ(host->capabilities().missing_for_live(), "");
}

}  // namespace
}  // namespace coppice
