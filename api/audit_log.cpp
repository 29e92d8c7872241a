#include "api/audit_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "api/json.hpp"
#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

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
  COPPICE_TRY(log->reopen());
  return log;
}

result<void> audit_log::reopen() {
  const int fd = ::open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_error("open audit log " + file_.string());
  out_ = unique_fd(fd);
  struct stat about {};
  if (::fstat(fd, &about) != 0) return errno_error("audit log " + file_.string());
  bytes_ = static_cast<std::uint64_t>(about.st_size);
  return {};
}

// What can't be renamed is appended to further: too large a log is better than none.
void audit_log::rotate() {
  const auto numbered = [this](int number) { return file_.string() + "." + std::to_string(number); };
  for (int number = files_kept; number > 1; --number) {
    ::rename(numbered(number - 1).c_str(), numbered(number).c_str());
  }
  if (::rename(file_.c_str(), numbered(1).c_str()) != 0) {
    spdlog::error("{}", errno_error("rotate audit log " + file_.string()).message());
  }
  if (const auto opened = reopen(); !opened.ok()) spdlog::error("{}", opened.error().message());
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
  if (bytes_ > 0 && bytes_ + line.size() > most_bytes_) rotate();
  if (::write(out_.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return spdlog::error("{}", errno_error("write audit log " + file_.string()).message());
  }
  bytes_ += line.size();
}

}  // namespace coppice
