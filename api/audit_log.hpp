// A record of every request, and of what else concerns access: JSON lines that are only ever appended to.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "api/audit_file.hpp"
#include "api/server.hpp"

namespace coppice {

// What is recorded besides requests.
struct audit_event {
  std::string_view event;  // "start", "stop", "reload", "connection_refused", "tls_failed"
  std::string_view peer = {};
  std::string_view detail = {};
};

// Lines are made where they are recorded, and written by a thread: a disk that is stuck must not hold up the API.
// Thread-safe, and nothing waits for the disk but where it is said.
//
// While as many lines wait to be written as may, has_room() is false. Whoever asks it before each request that changes
// something, and refuses that if there is none, loses no line of a change: what is recorded of those that were admitted
// before is kept all the same. All other lines are dropped and counted, and a line in their place says how many.
class audit_log {
 public:
  // Lines, and their bytes, that may wait.
  static constexpr std::size_t most_lines = 10'000;
  static constexpr std::size_t most_bytes = 16 * mib;
  // What the end waits for a stuck disk.
  static constexpr std::chrono::milliseconds last_words{500};

  // Errors: as audit_file::open().
  static result<std::unique_ptr<audit_log>> open(std::filesystem::path file, std::uint64_t most_bytes_of_a_file);
  audit_log(const audit_log&) = delete;
  audit_log& operator=(const audit_log&) = delete;
  ~audit_log();  // writes what it can within `last_words`; the log says how many lines are lost

  // Appends {"time", "event": "request", "request_id", "who", "peer", "method", "path", "status", "duration_ms"}, what
  // there is of request_details under the same names, and "replayed" if so.
  void record(const request_record& request);
  // Appends {"time", "event"}, then "peer" and "detail" if they are not empty. Kept, except of connections: those can
  // be many.
  void record(const audit_event& event);

  bool has_room() const;
  // Lines that found no room, or that could not be written; a failure to write is in the log, too.
  std::uint64_t dropped() const;
  // Waits until all that was recorded is written; false if that takes longer than `limit`.
  bool flush(std::chrono::milliseconds limit) const;

 private:
  struct queue;
  explicit audit_log(audit_file file);
  void append(std::string line, bool must_be_kept);

  std::shared_ptr<queue> queue_;  // shared with the writer, that may be stuck at the end
};

}  // namespace coppice
