// Faults on demand: what a test needs to see how Coppice behaves when a VMM is slow, refuses, hangs or dies.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace coppice::reference {

enum class fault_kind {
  delay,        // wait, then do it
  delay_after,  // do it, then wait before answering
  fail,         // answer 400 without doing it
  hang,         // neither do nor answer it, ever; later requests queue behind it
  exit,         // end the process (exit code 1) without doing it
};

struct fault {
  std::string method;
  std::string path;
  unsigned nth = 0;  // 0: every such call; else the nth only, counted from 1
  fault_kind kind = fault_kind::fail;
  std::chrono::milliseconds wait{};
};

// "<METHOD> <path>[#nth]:<delay=ms|delay-after=ms|fail|hang|exit>", e.g. "PATCH /vm#2:hang". Errors: invalid_argument.
result<fault> parse_fault(std::string_view text);

// The faults of one process, and how often each of their calls has come. Thread-safe.
class fault_plan {
 public:
  explicit fault_plan(std::vector<fault> faults);

  // The faults that strike this call, which is counted.
  std::vector<fault> strike(std::string_view method, std::string_view path);

 private:
  struct counted {
    fault what;
    unsigned calls = 0;
  };
  std::mutex mutex_;
  std::vector<counted> faults_;
};

}  // namespace coppice::reference
