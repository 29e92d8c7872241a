#include "vmm/process.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <span>

#include "base/file.hpp"
#include "base/log.hpp"

extern char** environ;

namespace coppice {
namespace {

struct planned_mount {
  const char* source;  // null: a procfs
  const char* target;
  unsigned long flags;
};

// What the child needs, all of it made before the fork: the child shares our memory and must not allocate.
struct child_plan {
  const char* binary;
  char* const* argv;
  int stdin_fd;
  int stdout_fd;
  int log_fd;
  int error_fd;  // CLOEXEC: closed by a successful exec
  pid_t parent;
  int network_namespace;  // -1: the parent's
  int cgroup_procs;       // -1: the parent's
  std::span<const planned_mount> mounts;
  bool keep_privileges;
};

[[noreturn]] void give_up(const child_plan& plan) {
  const int reason = errno;
  [[maybe_unused]] const auto written = ::write(plan.error_fd, &reason, sizeof reason);
  ::_exit(127);
}

// Changes the view of the file system, of the child alone.
void mount_all(const child_plan& plan) {
  if (plan.mounts.empty()) return;
  if (::unshare(CLONE_NEWNS) != 0) give_up(plan);
  // First of all: what is mounted below must not appear in the parent's view, where it could be removed as a folder.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) give_up(plan);
  for (const auto& each : plan.mounts) {
    if (each.source == nullptr) {
      if (::mount("proc", each.target, "proc", each.flags, "subset=pid,hidepid=invisible") != 0) give_up(plan);
      continue;
    }
    if (::mount(each.source, each.target, nullptr, MS_BIND, nullptr) != 0) give_up(plan);
    if (::mount(nullptr, each.target, nullptr, MS_BIND | MS_REMOUNT | each.flags, nullptr) != 0) give_up(plan);
  }
}

// What coppiced may do is not for its VMMs. Each step fails for who has nothing to give up: fine.
void drop_privileges() {
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // Root's exec gives no capabilities any more (capabilities(7), securebits).
  ::prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED, 0, 0, 0);
}

// No terminal of the daemon's, and not its signals. But its session: autogroup (sched(7)) shares CPUs between sessions
// before it looks at priorities, and the copy thread's would mean nothing to a vCPU in another.
void leave_terminal() {
  const int terminal = ::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return;  // there is none
  ::ioctl(terminal, TIOCNOTTY);
  ::close(terminal);
}

// Runs in the child between vfork and exec: system calls only.
[[noreturn]] void run_child(const child_plan& plan) {
  struct sigaction defaults {};
  defaults.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &defaults, nullptr);  // some can't be set: fine
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) give_up(plan);
  if (::getppid() != plan.parent) ::_exit(127);  // it died before the line above: no signal will come
  if (plan.cgroup_procs >= 0 && ::write(plan.cgroup_procs, "0", 1) < 0)
    give_up(plan);  // first: memory counts from here
  const sched_param usual{};
  ::sched_setscheduler(0, SCHED_OTHER, &usual);  // not the policy of the thread that starts it
  if (::setpgid(0, 0) != 0) give_up(plan);
  leave_terminal();
  if (::dup2(plan.stdin_fd, 0) < 0 || ::dup2(plan.stdout_fd, 1) < 0 || ::dup2(plan.log_fd, 2) < 0) give_up(plan);
  // By system call: the wrapper came with glibc 2.34 only. Closed at exec, so that the error pipe works up to then.
  if (::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0) give_up(plan);
  if (plan.network_namespace >= 0 && ::setns(plan.network_namespace, CLONE_NEWNET) != 0) give_up(plan);
  mount_all(plan);
  if (!plan.keep_privileges) drop_privileges();
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up(plan);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(plan.binary, plan.argv, environ);
  give_up(plan);
}

// vfork: no page tables are copied, however much guest RAM the daemon has mapped. Signals are blocked by the caller.
pid_t fork_child(const child_plan& plan) {
  // posix_spawn, which the linter wants, can't set PR_SET_PDEATHSIG; run_child keeps vfork's rules.
  const pid_t pid = ::vfork();    // NOLINT(clang-analyzer-security.insecureAPI.vfork)
  if (pid == 0) run_child(plan);  // NOLINT(clang-analyzer-unix.Vfork)
  return pid;
}

// A copy of `fd` that is none of 0, 1, 2, which the child overwrites.
result<unique_fd> duplicate_above_stdio(int fd) {
  unique_fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("duplicate a descriptor");
  return copy;
}

result<unique_fd> above_stdio(result<unique_fd> fd) {
  if (!fd || fd->get() > 2) return fd;
  return duplicate_above_stdio(fd->get());
}

result<unique_fd> open_above_stdio(const std::filesystem::path& path, int flags) {
  unique_fd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd) return errno_error("open " + path.string());
  return above_stdio(std::move(fd));
}

planned_mount to_plan(const private_mount& wanted) {
  constexpr unsigned long nothing_special = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  return {wanted.source.empty() ? nullptr : wanted.source.c_str(), wanted.target.c_str(),
          wanted.writable ? nothing_special : nothing_special | MS_RDONLY};
}

class blocked_signals {
 public:
  blocked_signals() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~blocked_signals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  blocked_signals(const blocked_signals&) = delete;
  blocked_signals& operator=(const blocked_signals&) = delete;

 private:
  sigset_t before_{};
};

exit_status to_exit_status(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return {info.si_status, 0};
  return {0, info.si_status};
}

// 0 if the exec succeeded (the pipe was closed without a word).
int read_exec_error(int fd) {
  int reason = 0;
  ssize_t got = 0;
  do {
    got = ::read(fd, &reason, sizeof reason);
  } while (got < 0 && errno == EINTR);
  return got == static_cast<ssize_t>(sizeof reason) ? reason : 0;
}

// The kernel counts guest RAM against the daemon, too, which maps it. Where memory runs out a VM is to go, not the
// daemon of all of them: its score is raised by what all RAM may count for (proc(5), oom_score_adj). Best effort.
void let_it_go_first(pid_t pid) {
  constexpr int most = 1000;
  constexpr int share_of_all_ram = 900;
  const auto own = read_text_file("/proc/self/oom_score_adj");
  const auto file = open_file("/proc/" + std::to_string(pid) + "/oom_score_adj", O_WRONLY);
  if (!own || !file) return;
  const auto score = std::to_string(std::min(most, std::atoi(own->c_str()) + share_of_all_ram));
  if (::write(file->get(), score.data(), score.size()) < 0) spdlog::debug("oom_score_adj of {}: errno {}", pid, errno);
}

}  // namespace

result<child_process> spawn_process(const process_spec& spec) {
  auto stdin_fd = spec.stdin_fd < 0 ? open_above_stdio("/dev/null", O_RDONLY) : duplicate_above_stdio(spec.stdin_fd);
  if (!stdin_fd) return std::move(stdin_fd).error();
  auto log_fd = open_above_stdio(spec.log_file, O_WRONLY | O_APPEND | O_CREAT);
  if (!log_fd) {  // "not_found" is the binary's: a missing log folder is something else
    return error{errc::io, log_fd.error().sys_errno, log_fd.error().context + " for the process's output"};
  }
  auto stdout_fd = duplicate_above_stdio(spec.stdout_fd < 0 ? log_fd->get() : spec.stdout_fd);
  if (!stdout_fd) return std::move(stdout_fd).error();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe");
  const unique_fd read_end(ends[0]);
  auto write_end = above_stdio(unique_fd(ends[1]));
  if (!write_end) return std::move(write_end).error();

  const auto binary = spec.binary.string();
  auto strings = spec.arguments;
  strings.insert(strings.begin(), binary);
  std::vector<char*> argv;
  std::transform(strings.begin(), strings.end(), std::back_inserter(argv), [](auto& text) { return text.data(); });
  argv.push_back(nullptr);

  std::vector<planned_mount> mounts;
  std::transform(spec.mounts.begin(), spec.mounts.end(), std::back_inserter(mounts), to_plan);

  const child_plan plan{binary.c_str(),    argv.data(),      stdin_fd->get(),     stdout_fd->get(),
                        log_fd->get(),     write_end->get(), ::getpid(),          spec.network_namespace,
                        spec.cgroup_procs, mounts,           spec.keep_privileges};
  pid_t pid = -1;
  int fork_errno = 0;
  {
    const blocked_signals blocked;  // a handler of ours must not run in the child, on our memory
    pid = fork_child(plan);
    fork_errno = errno;
  }
  if (pid < 0) return errno_error("start " + binary, fork_errno);
  write_end->reset();
  const int exec_errno = read_exec_error(read_end.get());

  // The pid can't be anyone else's: only we reap it. By system call: glibc 2.36 has the wrapper, its header not for
  // C++.
  unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int pidfd_errno = errno;
  if (!pidfd || exec_errno != 0) {
    ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return exec_errno != 0 ? errno_error("start " + binary, exec_errno) : errno_error("pidfd_open", pidfd_errno);
  }
  let_it_go_first(pid);
  return child_process(pid, std::move(pidfd));
}

child_process::~child_process() {
  if (!pidfd_) return;
  kill();
  // A killed process ends at once unless it hangs in the kernel; then its remains are left to our own end.
  const auto ended = wait(std::chrono::seconds(5));
  if (!ended || !*ended) spdlog::error("process {} did not end within 5 s of SIGKILL: abandoned", pid_);
}

void child_process::kill() const noexcept {
  if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);  // fails only if it has ended
}

result<std::optional<exit_status>> child_process::wait(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG) != 0 && errno != EINTR)
      return errno_error("wait for process " + std::to_string(pid_));
    if (info.si_pid == pid_) {
      pidfd_.reset();
      return std::optional(to_exit_status(info));
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::optional<exit_status>();
    pollfd ended{pidfd_.get(), POLLIN, 0};
    ::poll(&ended, 1, static_cast<int>(left.count()));
  }
}

}  // namespace coppice
