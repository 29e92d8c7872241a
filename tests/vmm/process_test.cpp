#include "vmm/process.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

struct process_test : testing::Test {
  result<child_process> spawn(std::vector<std::string> arguments) {
    return spawn_process({VMM_TEST_CHILD, std::move(arguments), log});
  }
  exit_status run(std::vector<std::string> arguments) {
    auto child = spawn(std::move(arguments));
    EXPECT_TRUE(child);
    auto ended = child->wait(30s);
    EXPECT_TRUE(ended && *ended);
    return **ended;
  }
  std::string logged() { return read_text_file(log).value(); }

  temp_dir dir;
  std::filesystem::path log = dir.path() / "log";
};

TEST_F(process_test, the_exit_code_and_the_signal_are_told) {
  const auto code = run({"exit", "42"});
  EXPECT_EQ(code.code, 42);
  EXPECT_EQ(code.signal, 0);
  EXPECT_EQ(code.describe(), "exit code 42");
  const auto signal = run({"signal", "15"});
  EXPECT_EQ(signal.signal, SIGTERM);
  EXPECT_EQ(signal.describe(), "signal 15 (Terminated)");
}

TEST_F(process_test, nothing_is_inherited_and_output_goes_to_the_log) {
  // Neither of these two is CLOEXEC.
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const unique_fd read_end(ends[0]);
  const unique_fd write_end(ends[1]);
  sigset_t usr1;
  sigset_t before;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &before);
  const auto old_pipe = ::signal(SIGPIPE, SIG_IGN);
  const auto status = run({"report"});
  ::signal(SIGPIPE, old_pipe);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(status.code, 0);
  const auto text = logged();
  EXPECT_THAT(text, HasSubstr("fd 0 /dev/null\n"));
  EXPECT_THAT(text, HasSubstr("fd 1 " + log.string() + "\n"));
  EXPECT_THAT(text, HasSubstr("fd 2 " + log.string() + "\n"));
  EXPECT_EQ(text.find("fd 3"), std::string::npos) << text;
  EXPECT_THAT(text, Not(HasSubstr("pipe:")));
  EXPECT_THAT(text, HasSubstr("usr1 blocked 0"));
  EXPECT_THAT(text, HasSubstr("sigpipe default 1"));
  EXPECT_THAT(text, HasSubstr("own process group 1"));
  EXPECT_THAT(text, HasSubstr("no new privileges 1"));
  EXPECT_THAT(text, HasSubstr("network " + std::filesystem::read_symlink("/proc/self/ns/net").string()));
  EXPECT_THAT(text, HasSubstr("on stderr"));
}

// sched(7), autogroup: the CPUs are shared between sessions first, and between their threads by priority only then.
TEST_F(process_test, a_child_shares_cpus_with_its_parents_threads_by_priority) {
  exit_status status;
  std::thread([&] {
    const sched_param parameters{};
    ASSERT_EQ(::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &parameters), 0);
    auto child = spawn({"hang"});
    ASSERT_TRUE(child);
    EXPECT_EQ(::getsid(child->pid()), ::getsid(0));
    status = run({"report"});
  }).join();
  EXPECT_EQ(status.code, 0);
  EXPECT_THAT(logged(), HasSubstr("policy " + std::to_string(SCHED_OTHER)));
}

TEST_F(process_test, a_child_has_no_terminal_though_its_parent_has_one) {
  const pid_t parent = ::fork();
  if (parent == 0) {
    const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
    if (::grantpt(terminal) != 0 || ::unlockpt(terminal) != 0 || ::setsid() < 0) ::_exit(2);
    if (::open(::ptsname(terminal), O_RDWR) < 0 || ::open("/dev/tty", O_RDWR) < 0) ::_exit(3);
    ::_exit(run({"report"}).code);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(parent, &status, 0), parent);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
  EXPECT_THAT(logged(), HasSubstr("terminal 0"));
}

TEST_F(process_test, when_memory_runs_out_a_child_goes_before_its_parent) {
  auto child = spawn({"hang"});
  ASSERT_TRUE(child);
  const auto score_of = [](const std::string& pid) {
    return std::stoi(read_text_file("/proc/" + pid + "/oom_score_adj").value());
  };
  EXPECT_EQ(score_of(std::to_string(child->pid())), std::min(1000, score_of("self") + 900));
}

TEST_F(process_test, one_descriptor_may_be_given_as_its_stdin) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const unique_fd read_end(ends[0]);
  const unique_fd write_end(ends[1]);
  process_spec spec{VMM_TEST_CHILD, {"report"}, log};
  spec.stdin_fd = write_end.get();
  auto child = spawn_process(spec);
  ASSERT_TRUE(child) << child.error().message();
  ASSERT_TRUE(*child->wait(30s));
  EXPECT_THAT(logged(), HasSubstr("fd 0 pipe:"));
  EXPECT_THAT(logged(), Not(HasSubstr("fd 3")));
  EXPECT_NE(::fcntl(write_end.get(), F_GETFD) & FD_CLOEXEC, 0) << "ours is as it was";
}

TEST_F(process_test, it_has_no_capabilities_even_if_we_have_them) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root has some";
  run({"report"});
  EXPECT_THAT(logged(), HasSubstr("CapPrm:\t0000000000000000"));
  EXPECT_THAT(logged(), HasSubstr("CapEff:\t0000000000000000"));
}

TEST_F(process_test, it_may_keep_what_root_may_do) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may do more";
  process_spec spec{VMM_TEST_CHILD, {"report"}, log};
  spec.keep_privileges = true;
  auto child = spawn_process(spec);
  ASSERT_TRUE(child) << child.error().message();
  ASSERT_TRUE(*child->wait(30s));
  EXPECT_THAT(logged(), Not(HasSubstr("CapEff:\t0000000000000000")));
}

TEST_F(process_test, mounts_are_seen_by_the_process_alone_and_files_can_only_be_read) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const auto file = dir.path() / "file";
  const auto shown = dir.path() / "shown";
  ASSERT_TRUE(write_text_file(file, "text"));
  ASSERT_TRUE(write_text_file(shown, ""));
  process_spec spec{VMM_TEST_CHILD, {"open", shown.string()}, log};
  spec.mounts = {{file, shown}};
  spec.keep_privileges = true;
  auto child = spawn_process(spec);
  ASSERT_TRUE(child) << child.error().message();
  ASSERT_TRUE(*child->wait(30s));
  EXPECT_THAT(logged(), HasSubstr("it holds: text\nto write: Read-only file system\n"));
  EXPECT_EQ(read_text_file(shown).value(), "") << "nothing is mounted outside";
}

TEST_F(process_test, a_mount_that_fails_ends_the_start) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  process_spec spec{VMM_TEST_CHILD, {"report"}, log};
  spec.mounts = {{dir.path() / "none", dir.path() / "none either"}};
  EXPECT_FALSE(spawn_process(spec));
}

TEST_F(process_test, the_log_is_appended_to) {
  ASSERT_TRUE(write_text_file(log, "before\n"));
  run({"report"});
  EXPECT_THAT(logged(), testing::StartsWith("before\n"));
}

TEST_F(process_test, a_killed_child_is_told_as_such) {
  auto child = spawn({"hang"});
  ASSERT_TRUE(child);
  const auto still = child->wait(0ms);
  ASSERT_TRUE(still);
  EXPECT_FALSE(*still);
  child->kill();
  child->kill();
  const auto ended = child->wait(30s);
  ASSERT_TRUE(ended && *ended);
  EXPECT_EQ((*ended)->describe(), "signal 9 (Killed)");
  child->kill();  // nothing to hit any more
}

TEST_F(process_test, the_destructor_kills_and_leaves_no_zombie) {
  pid_t pid = -1;
  {
    auto child = spawn({"hang"});
    ASSERT_TRUE(child);
    pid = child->pid();
  }
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST_F(process_test, a_binary_that_cannot_be_run_is_an_error_and_no_process) {
  const auto missing = spawn_process({dir.path() / "none", {}, log});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, errc::not_found);
  EXPECT_THAT(missing.error().context, HasSubstr((dir.path() / "none").string()));
  ASSERT_TRUE(write_text_file(dir.path() / "text", "no program"));
  const auto text = spawn_process({dir.path() / "text", {}, log});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().sys_errno, EACCES);
  const auto no_log = spawn_process({VMM_TEST_CHILD, {"exit", "0"}, dir.path() / "none" / "log"});
  ASSERT_FALSE(no_log);
  EXPECT_EQ(no_log.error().code, errc::io);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(process_test, the_child_dies_with_its_parent) {
  // A grandchild whose parent is killed comes to us, so that we can watch it: no other process's fate is guessed.
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  auto parent = spawn({"parent", (dir.path() / "grandchild").string()});
  ASSERT_TRUE(parent);
  // Its stdin is /dev/null, at its end: it starts the grandchild, says its pid and kills itself.
  const auto ended = parent->wait(30s);
  ASSERT_TRUE(ended && *ended);
  EXPECT_EQ((*ended)->signal, SIGKILL);
  const auto grandchild = std::stoi(logged());
  const unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, grandchild, 0)));
  ASSERT_TRUE(pidfd) << "the grandchild is ours to reap, so it must be there, dead or alive";
  pollfd ready{pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 10'000), 1) << "still alive 10 s after its parent's death";
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED), 0);
  EXPECT_EQ(info.si_status, SIGKILL);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

}  // namespace
}  // namespace coppice
