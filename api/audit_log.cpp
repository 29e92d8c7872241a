#include "api/audit_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "api/json.hpp"
#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

constexpr int append_flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW;
constexpr unsigned owner_only = 0600;

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::system_clock::to_time_t(now);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() % 1'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:06}Z", text, micros);
}

}  // namespace

result<std::unique_ptr<audit_log>> audit_log::open(std::filesystem::path file, std::uint64_t most_bytes) {
  std::unique_ptr<audit_log> log(new audit_log(std::move(file), most_bytes));  // NOLINT: the constructor is private
  auto opened = open_file(log->file_, append_flags, owner_only);
  if (!opened.ok()) return std::move(opened).error();
  struct stat about {};
  if (::fstat(opened->get(), &about) != 0) return errno_error("audit log " + log->file_.string());
  log->out_ = *std::move(opened);
  log->bytes_ = static_cast<std::uint64_t>(about.st_size);
  return log;
}

// Nothing is moved before there is a new file: while none can be had (say, no descriptors are left) the old one grows,
// which is better than losing what the numbered ones hold.
result<void> audit_log::rotate() {
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

void audit_log::record(const request_record& request) {
  nlohmann::ordered_json entry;
  entry["time"] = utc_now();
  entry["request_id"] = request.id;
  entry["who"] = request.who;
  entry["peer"] = request.peer;
  entry["method"] = request.method;
  entry["path"] = request.target;
  entry["status"] = request.status;
  entry["duration_ms"] = request.took.count() * 1000;
  const std::string line = entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (bytes_ > 0 && bytes_ + line.size() > most_bytes_) {
    if (const auto rotated = rotate(); !rotated.ok()) spdlog::error("audit log: {}", rotated.error().message());
  }
  const auto written = ::write(out_.get(), line.data(), line.size());
  if (written < 0) return spdlog::error("{}", errno_error("write audit log " + file_.string()).message());
  bytes_ += static_cast<std::uint64_t>(written);
  if (static_cast<std::size_t>(written) < line.size()) {
    spdlog::error("audit log {}: no space for a whole line", file_.string());
    if (::ftruncate(out_.get(), static_cast<off_t>(bytes_) - written) == 0)
      bytes_ -= static_cast<std::uint64_t>(written);
  }
}

}  // namespace coppice
