// One branch's worth of the copy engine, without a VM: each step waited for.
#pragma once

#include <filesystem>
#include <functional>

#include "copy_engine/copy_engine.hpp"

namespace coppice::bench {

using bench_clock = std::chrono::steady_clock;

inline double seconds_since(bench_clock::time_point begin) {
  return std::chrono::duration<double>(bench_clock::now() - begin).count();
}

// Calls `step` with a completion, and waits for it.
result<void> wait_for(const std::function<void(copy_session::completion)>& step);
result<copy_result> wait_for_copy(copy_session& session, unique_fd image);
void wait_for_abort(copy_session& session);

struct engine_times {
  double prearm = 0, rearm = 0, copy = 0;  // seconds
  copy_summary summary;
};
// prearm, rearm, and the copy into `image`, which has its size. Nobody writes to the memory meanwhile.
result<engine_times> run_engine(protected_memory& memory, unique_fd image);

// A new file of `size` bytes, all hole; one that is there is removed first. `flags`: O_DIRECT, or nothing.
result<unique_fd> create_image(const std::filesystem::path& path, std::uint64_t size, int flags = 0);

// A file that is removed at the end.
class temporary_file {
 public:
  explicit temporary_file(std::filesystem::path path) : path_(std::move(path)) {}
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace coppice::bench
