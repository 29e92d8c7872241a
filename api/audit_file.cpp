#include "api/audit_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

constexpr int append_flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW;
constexpr unsigned owner_only = 0600;

}  // namespace

result<audit_file> audit_file::open(std::filesystem::path file, std::uint64_t most_bytes) {
  audit_file made(std::move(file), most_bytes);
  auto opened = open_file(made.file_, append_flags, owner_only);
  if (!opened.ok()) return std::move(opened).error();
  struct stat about {};
  if (::fstat(opened->get(), &about) != 0) return errno_error("audit log " + made.file_.string());
  made.out_ = *std::move(opened);
  made.bytes_ = static_cast<std::uint64_t>(about.st_size);
  return made;
}

// Nothing is moved before there is a new file: while none can be had (say, no descriptors are left) the old one grows,
// which is better than losing what the numbered ones hold.
result<void> audit_file::rotate() {
  const auto numbered = [this](int number) { return file_.string() + "." + std::to_string(number); };
  const std::string fresh = file_.string() + ".new";
  ::unlink(fresh.c_str());  // of a daemon that was killed amid this
  auto opened = open_file(fresh, append_flags | O_EXCL, owner_only);
  if (!opened.ok()) return std::move(opened).error();
  for (int number = files_kept; number > 1; --number) {
    ::rename(numbered(number - 1).c_str(), numbered(number).c_str());  // fails while there are fewer
  }
  if (::rename(file_.c_str(), numbered(1).c_str()) != 0 || ::rename(fresh.c_str(), file_.c_str()) != 0) {
    return errno_error("rename " + file_.string());
  }
  out_ = *std::move(opened);
  bytes_ = 0;
  return {};
}

result<void> audit_file::append(std::string_view line) {
  if (bytes_ > 0 && bytes_ + line.size() > most_bytes_) {
    if (const auto rotated = rotate(); !rotated.ok()) spdlog::error("audit log: {}", rotated.error().message());
  }
  const auto written = ::write(out_.get(), line.data(), line.size());
  if (written < 0) return errno_error("write audit log " + file_.string());
  if (static_cast<std::size_t>(written) < line.size()) {
    if (::ftruncate(out_.get(), static_cast<off_t>(bytes_)) != 0) bytes_ += static_cast<std::uint64_t>(written);
    return error{errc::no_space, 0, "audit log " + file_.string() + ": no space for a whole line"};
  }
  bytes_ += line.size();
  return {};
}

}  // namespace coppice
