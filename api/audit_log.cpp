#include "api/audit_log.hpp"

#include <pthread.h>

#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "api/json.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t longest_value = 1000;  // of what a client named

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

ordered_json entry_of(std::string_view event) {
  ordered_json entry;
  entry["time"] = utc_now();
  entry["event"] = event;
  return entry;
}

void add(ordered_json& entry, const char* name, std::string_view value) {
  if (!value.empty()) entry[name] = value.substr(0, longest_value);
}

void add(ordered_json& entry, const request_details& details) {
  add(entry, "tag", details.tag);
  add(entry, "kernel", details.kernel);
  add(entry, "initrd", details.initrd);
  add(entry, "rootfs", details.rootfs);
  add(entry, "snapshot_tag", details.snapshot_tag);
  if (details.count > 0) entry["count"] = details.count;
  add(entry, "mode", details.mode);
  add(entry, "program", details.program);
  if (!details.made.empty()) entry["made"] = details.made;
}

std::string line_of(const ordered_json& entry) {
  return entry.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string line_of_dropped(std::uint64_t lines) {
  auto entry = entry_of("lines_dropped");
  entry["lines"] = lines;
  return line_of(entry);
}

}  // namespace

// `mutex` guards all but `file`, which is the writer's.
struct audit_log::queue {
  explicit queue(audit_file of) : file(std::move(of)) {}

  bool has_room() const { return lines.size() < most_lines && bytes < most_bytes; }
  void push(std::string line) {
    bytes += line.size();
    lines.push_back(std::move(line));
    changed.notify_all();
  }
  void write_until_the_end();

  audit_file file;
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::deque<std::string> lines;
  std::size_t bytes = 0;
  std::uint64_t missing = 0;  // lines dropped since the last one that was taken
  std::uint64_t dropped = 0;  // in all
  bool writing = false;
  bool stopping = false;
  bool given_up = false;  // nobody waits for the writer any more: it must touch nothing of the program's
};

void audit_log::queue::write_until_the_end() {
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return !lines.empty() || stopping; });
    if (lines.empty()) return;
    const std::string line = std::move(lines.front());
    lines.pop_front();
    bytes -= line.size();
    writing = true;
    lock.unlock();
    const auto written = file.append(line);
    lock.lock();
    writing = false;
    if (given_up) return;
    if (!written.ok()) {
      ++dropped;
      spdlog::error("{}", written.error().message());
    }
    changed.notify_all();
  }
}

audit_log::audit_log(audit_file file) : queue_(std::make_shared<queue>(std::move(file))) {
  std::thread writer([mine = queue_] { mine->write_until_the_end(); });
  ::pthread_setname_np(writer.native_handle(), "audit");
  writer.detach();  // a disk that is stuck may keep it for ever
}

audit_log::~audit_log() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->stopping = true;
  }
  queue_->changed.notify_all();
  if (flush(last_words)) return;
  const std::lock_guard lock(queue_->mutex);
  queue_->given_up = true;
  spdlog::error("the disk of the audit log is stuck: its last {} lines are not written", queue_->lines.size() + 1);
}

result<std::unique_ptr<audit_log>> audit_log::open(std::filesystem::path file, std::uint64_t most_bytes_of_a_file) {
  auto opened = audit_file::open(std::move(file), most_bytes_of_a_file);
  if (!opened.ok()) return std::move(opened).error();
  return std::unique_ptr<audit_log>(new audit_log(*std::move(opened)));  // NOLINT: the constructor is private
}

bool audit_log::has_room() const {
  const std::lock_guard lock(queue_->mutex);
  return queue_->has_room();
}

std::uint64_t audit_log::dropped() const {
  const std::lock_guard lock(queue_->mutex);
  return queue_->dropped;
}

bool audit_log::flush(std::chrono::milliseconds limit) const {
  std::unique_lock lock(queue_->mutex);
  return queue_->changed.wait_for(lock, limit, [this] { return queue_->lines.empty() && !queue_->writing; });
}

void audit_log::append(std::string line, bool must_be_kept) {
  const std::lock_guard lock(queue_->mutex);
  if (!queue_->has_room() && !must_be_kept) {
    if (queue_->missing == 0) spdlog::error("the disk of the audit log is stuck: changes are refused, lines dropped");
    ++queue_->missing;
    ++queue_->dropped;
    return;
  }
  if (const auto missing = std::exchange(queue_->missing, 0); missing > 0) {
    spdlog::warn("the audit log misses {} lines", missing);
    queue_->push(line_of_dropped(missing));
  }
  queue_->push(std::move(line));
}

void audit_log::record(const request_record& request) {
  auto entry = entry_of("request");
  entry["request_id"] = request.id;
  entry["who"] = request.who;
  entry["peer"] = request.peer;
  entry["method"] = request.method;
  entry["path"] = request.target;
  entry["status"] = request.status;
  entry["duration_ms"] = request.took.count() * 1000;
  if (request.details != nullptr) add(entry, *request.details);
  if (request.replayed) entry["replayed"] = true;
  append(line_of(entry), request.may_have_changed);
}

void audit_log::record(const audit_event& event) {
  auto entry = entry_of(event.event);
  add(entry, "peer", event.peer);
  add(entry, "detail", event.detail);
  append(line_of(entry), event.peer.empty());
}

}  // namespace coppice
