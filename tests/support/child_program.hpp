// A real program, as a child process of a test.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"

namespace coppice {

inline constexpr auto child_patience = std::chrono::seconds(60);

// A program that was started, with its stdout and stderr in one pipe.
class child_program {
 public:
  child_program(const std::filesystem::path& program, const std::vector<std::string>& arguments);
  child_program(const child_program&) = delete;
  child_program& operator=(const child_program&) = delete;
  ~child_program();  // SIGKILL, if it still runs

  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  // Reads on until `text` has appeared in the output; false if the program ends or `child_patience` is over first.
  bool wait_for_output(std::string_view text);
  // Waits for the end; the exit code, or -signal. nullopt: still running after `limit`.
  std::optional<int> wait_for_exit(std::chrono::milliseconds limit);
  const std::string& output() const { return output_; }

 private:
  bool read_more(std::chrono::steady_clock::time_point deadline);

  pid_t pid_ = -1;
  unique_fd pipe_;
  std::string output_;
  std::optional<int> exit_;
};

}  // namespace coppice
