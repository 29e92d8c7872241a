#include "tests/support/child_program.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

extern char** environ;

namespace coppice {

using std::chrono::steady_clock;

child_program::child_program(const std::filesystem::path& program, const std::vector<std::string>& arguments) {
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  pipe_ = unique_fd(ends[0]);
  const unique_fd theirs(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDERR_FILENO);
  std::string name = program.string();
  std::vector<std::string> copies = arguments;
  std::vector<char*> argv{name.data()};
  for (std::string& each : copies) argv.push_back(each.data());
  argv.push_back(nullptr);
  EXPECT_EQ(::posix_spawn(&pid_, name.c_str(), &actions, nullptr, argv.data(), environ), 0) << name;
  ::posix_spawn_file_actions_destroy(&actions);
}

child_program::~child_program() {
  if (pid_ > 0 && !exit_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

bool child_program::read_more(steady_clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  pollfd event{pipe_.get(), POLLIN, 0};
  if (left <= 0 || ::poll(&event, 1, static_cast<int>(left)) <= 0) return false;
  char buffer[4096];
  const ssize_t length = ::read(pipe_.get(), buffer, sizeof buffer);
  if (length <= 0) return false;
  output_.append(buffer, static_cast<std::size_t>(length));
  return true;
}

bool child_program::wait_for_output(std::string_view text) {
  const auto deadline = steady_clock::now() + child_patience;
  while (output_.find(text) == std::string::npos) {
    if (!read_more(deadline)) return false;
  }
  return true;
}

std::optional<int> child_program::wait_for_exit(std::chrono::milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  while (read_more(deadline)) {
  }
  while (!exit_ && steady_clock::now() < deadline) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  return exit_;
}

}  // namespace coppice
