// Logging: spdlog's default logger, on stderr. Programs call log_to_stderr() once, then everyone uses
// spdlog::info(...).
#pragma once

#include <spdlog/spdlog.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace coppice {

enum class log_format {
  human,  // time, level, program, message
  json,   // an object a line: time, level, program, message, and the fields of log_with()
};

// Sends the process's log to stderr with UTC microsecond time stamps, without ever waiting for whoever reads it.
// `level`: trace, debug, info, warn, err.
void log_to_stderr(const std::string& program, const std::string& level, log_format format = log_format::human);

// A value beside the message, for programs that read logs. Its name is a plain word.
struct log_field {
  std::string_view name;
  std::variant<std::int64_t, std::string_view> value;
};

// Logs `message`, which says all to a person, with fields that say it to a program; a human log leaves them out.
// REQUIRES: the default logger formats in the caller's thread (it is not asynchronous).
void log_with(spdlog::level::level_enum level, std::string_view message, std::span<const log_field> fields);

// What log_format::json is made of.
std::unique_ptr<spdlog::formatter> make_json_formatter();

}  // namespace coppice
