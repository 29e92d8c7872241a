#include "base/log.hpp"

#include <spdlog/pattern_formatter.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/patient_log_sink.hpp"

namespace coppice {
namespace {

constexpr auto time_pattern = "%Y-%m-%dT%H:%M:%S.%fZ";

// Set while log_with() logs: spdlog has no way to hand them through.
thread_local std::span<const log_field> fields_of_this_line;

class json_formatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& line, spdlog::memory_buf_t& out) override {
    spdlog::memory_buf_t time;
    time_.format(line, time);
    nlohmann::ordered_json object{{"time", to_view(time)},
                                  {"level", to_view(spdlog::level::to_string_view(line.level))},
                                  {"program", to_view(line.logger_name)},
                                  {"message", to_view(line.payload)}};
    for (const auto& [name, value] : fields_of_this_line) {
      std::visit([&, key = std::string(name)](const auto& each) { object[key] = each; }, value);
    }
    // Programs say what they like: bytes that are no UTF-8 become U+FFFD.
    const auto text = object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<json_formatter>(); }

 private:
  template <class Text>
  static std::string_view to_view(const Text& text) {
    return {text.data(), text.size()};
  }
  spdlog::pattern_formatter time_{time_pattern, spdlog::pattern_time_type::utc, ""};
};

// Whether stderr is journald's, which reads a line's priority from "<N>" before it (sd-daemon(3)).
bool stderr_is_the_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat about {};
  return stream != nullptr && ::fstat(STDERR_FILENO, &about) == 0 &&
         stream == std::to_string(about.st_dev) + ":" + std::to_string(about.st_ino);
}

// Puts the priority before what another formatter makes.
class journal_formatter final : public spdlog::formatter {
 public:
  explicit journal_formatter(std::unique_ptr<spdlog::formatter> line) : line_(std::move(line)) {}
  void format(const spdlog::details::log_msg& line, spdlog::memory_buf_t& out) override {
    static constexpr char priorities[] = "7764326";  // of trace, debug, info, warn, err, critical, off
    const char prefix[] = {'<', priorities[line.level], '>'};
    out.append(prefix, prefix + sizeof prefix);
    line_->format(line, out);
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<journal_formatter>(line_->clone()); }

 private:
  std::unique_ptr<spdlog::formatter> line_;
};

}  // namespace

void log_to_stderr(const std::string& program, const std::string& level, log_format format) {
  auto logger = std::make_shared<spdlog::logger>(program, std::make_shared<patient_log_sink>(STDERR_FILENO));
  std::unique_ptr<spdlog::formatter> lines = std::make_unique<spdlog::pattern_formatter>(
      std::string(time_pattern) + " %^%l%$ %n: %v", spdlog::pattern_time_type::utc);
  if (format == log_format::json) lines = make_json_formatter();
  if (stderr_is_the_journal()) lines = std::make_unique<journal_formatter>(std::move(lines));
  logger->set_formatter(std::move(lines));
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

void log_with(spdlog::level::level_enum level, std::string_view message, std::span<const log_field> fields) {
  fields_of_this_line = fields;
  spdlog::log(level, spdlog::string_view_t(message.data(), message.size()));
  fields_of_this_line = {};
}

std::unique_ptr<spdlog::formatter> make_json_formatter() {
  return std::make_unique<json_formatter>();
}

}  // namespace coppice
