// `coppice-bench copy` and `fault`: the copy engine alone, beside what the machine can do without it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/result.hpp"

namespace coppice::bench {

struct copy_options {
  std::uint64_t memory_bytes = 0;
  std::filesystem::path root;
  unsigned rounds = 7;
};

// Interleaved rounds of: memcpy to reused pages, O_DIRECT writes, buffered writes with fsync, and the engine's copy.
result<nlohmann::json> run_copy_bench(const copy_options& options);

struct fault_options {
  std::uint64_t memory_bytes = 0;
  std::filesystem::path root;
};

// One write fault after the other, random and sequential, during a copy that is held up; and the bare kernel round
// trip.
result<nlohmann::json> run_fault_bench(const fault_options& options);

}  // namespace coppice::bench
