#include "store/root_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "base/file.hpp"

namespace coppice {

result<root_lock> root_lock::acquire(const std::filesystem::path& root) {
  const auto path = root / "lock";
  // Close-on-exec (open_file): otherwise a VMM that outlives us would inherit the lock.
  auto fd = open_file(path, O_RDWR | O_CREAT);
  if (!fd) return std::move(fd).error();
  if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("lock " + path.string());
    auto holder = read_text_file(path);
    const std::string pid = holder && !holder->empty() ? *holder : "unknown";
    return error{
        errc::conflict, 0,
        "the store " + root.string() + " is in use by the process with pid " + pid + ": stop it, or use another root"};
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd->get(), 0) != 0) return errno_error("truncate " + path.string());
  if (auto written = write_all_at(fd->get(), std::as_bytes(std::span(pid)), 0); !written) {
    auto failure = std::move(written).error();
    failure.context += " of " + path.string();
    return failure;
  }
  return root_lock(std::move(*fd));
}

}  // namespace coppice
