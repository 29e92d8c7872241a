// Logging: spdlog's default logger, on stderr. Programs call log_to_stderr() once, then everyone uses
// spdlog::info(...).
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace coppice {

// Sends the process's log to stderr with UTC microsecond time stamps. `level`: trace, debug, info, warn, err.
void log_to_stderr(const std::string& program, const std::string& level);

}  // namespace coppice
