// `coppice-bench copy`: the copy engine alone, beside what the machine can do without it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/result.hpp"
#include "bench/report.hpp"

namespace coppice::bench {

struct copy_options {
  std::vector<std::uint64_t> memory_bytes;
  std::filesystem::path root;  // of the image on a disk
  unsigned rounds = 10;
};

// Per memory size, interleaved in each round: memcpy and pwrite to pages of tmpfs files that are there already,
// O_DIRECT and buffered writes, those by system calls also with the digests that the engine makes, and the engine into
// a new file below `root`, into a file on tmpfs whose pages are there already, and into a new one there. Adds to `to`.
// Errors: unsupported (no userfaultfd), no_space, io.
result<void> run_copy_bench(const copy_options& options, report& to);

}  // namespace coppice::bench
