#include "cli/daemon_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/file.hpp"

namespace coppice {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds poll_interval{10};
constexpr std::string_view listening = "listening on ";
constexpr std::size_t log_tail_size = 2000;

std::string describe(int status) {
  if (WIFEXITED(status)) return "exit code " + std::to_string(WEXITSTATUS(status));
  return "signal " + std::to_string(WTERMSIG(status));
}

// In the child: only async-signal-safe calls.
[[noreturn]] void become(const char* binary, char* const* arguments, int log_fd, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
  ::dup2(log_fd, STDOUT_FILENO);
  ::dup2(log_fd, STDERR_FILENO);
  ::execv(binary, arguments);
  ::_exit(127);
}

}  // namespace

result<std::unique_ptr<daemon_process>> daemon_process::start(const std::filesystem::path& binary,
                                                              std::vector<std::string> arguments,
                                                              const std::filesystem::path& log,
                                                              std::chrono::milliseconds deadline) {
  if (::access(binary.c_str(), X_OK) != 0) return errno_error("cannot run " + binary.string());
  auto log_fd = open_file(log, O_WRONLY | O_CREAT | O_TRUNC);
  if (!log_fd.ok()) return std::move(log_fd).error();
  arguments.insert(arguments.begin(), binary.string());
  arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0"});
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) become(binary.c_str(), argv.data(), log_fd->get(), parent);
  auto process = std::unique_ptr<daemon_process>(new daemon_process(pid, log));  // NOLINT: the constructor is private
  COPPICE_TRY(process->wait_until_listening(deadline));
  return process;
}

daemon_process::~daemon_process() {
  if (gone_) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, &status_, 0);
}

result<void> daemon_process::wait_until_listening(std::chrono::milliseconds deadline) {
  const auto until = steady_clock::now() + deadline;
  while (steady_clock::now() < until) {
    const bool ended = reap();
    const auto text = read_text_file(log_);
    const auto at = text.ok() ? text->find(listening) : std::string::npos;
    const auto end = at == std::string::npos ? at : text->find('\n', at);
    if (end != std::string::npos) {
      url_ = text->substr(at + listening.size(), end - at - listening.size());
      return {};
    }
    if (ended) return error{errc::internal, 0, "coppiced ended with " + describe(status_) + ":\n" + log_tail()};
    std::this_thread::sleep_for(poll_interval);
  }
  return error{errc::deadline_exceeded, 0,
               "coppiced did not listen within " + std::to_string(deadline.count()) + " ms:\n" + log_tail()};
}

result<void> daemon_process::stop(std::chrono::milliseconds deadline) {
  if (!gone_) ::kill(pid_, SIGTERM);
  const auto until = steady_clock::now() + deadline;
  while (!reap()) {
    if (steady_clock::now() > until) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, &status_, 0);
      gone_ = true;
      return error{errc::deadline_exceeded, 0,
                   "coppiced did not stop within " + std::to_string(deadline.count()) + " ms and was killed"};
    }
    std::this_thread::sleep_for(poll_interval);
  }
  if (WIFEXITED(status_) && WEXITSTATUS(status_) == 0) return {};
  return error{errc::internal, 0, "coppiced ended with " + describe(status_) + ":\n" + log_tail()};
}

bool daemon_process::reap() {
  if (!gone_) gone_ = ::waitpid(pid_, &status_, WNOHANG) == pid_;
  return gone_;
}

std::string daemon_process::log_tail() const {
  const auto text = read_text_file(log_);
  if (!text.ok()) return "";
  return text->size() > log_tail_size ? text->substr(text->size() - log_tail_size) : *text;
}

}  // namespace coppice
