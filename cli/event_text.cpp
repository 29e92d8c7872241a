#include "cli/event_text.hpp"

#include <array>
#include <cstdio>
#include <ctime>

namespace coppice {

using nlohmann::json;

namespace {

std::string utc_time(std::int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::array<char, 8> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%03dZ", static_cast<int>(unix_ms % 1000));
  return std::string(text.data(), length) + fraction.data();
}

}  // namespace

void event_reader::take(std::string_view bytes) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    if (line_.ends_with('\r')) line_.pop_back();
    take_line(line_);
    line_.clear();
  }
}

void event_reader::take_line(std::string_view line) {
  if (line.empty()) return end_event();
  const auto colon = line.find(':');
  const auto field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "id") next_.id = value;
  if (field == "event") next_.type = value;
  if (field != "data") return;
  if (has_data_) next_.data += '\n';
  next_.data += value;
  has_data_ = true;
}

void event_reader::end_event() {
  if (has_data_) hear_(next_);
  next_ = {next_.id, "", ""};
  has_data_ = false;
}

json event_json(const server_event& event) {
  json told = json::parse(event.data, nullptr, false);
  if (!told.is_object()) told = {{"data", event.data}};
  if (!told.contains("type")) told["type"] = event.type;
  if (!told.contains("id") && !event.id.empty()) {
    const json id = json::parse(event.id, nullptr, false);
    told["id"] = id.is_number_unsigned() ? id : json(event.id);
  }
  return told;
}

std::string event_line(const json& event) {
  std::string line;
  const auto time = event.find("time_unix_ms");
  if (time != event.end() && time->is_number_integer()) line = utc_time(time->get<std::int64_t>()) + ' ';
  line += event.value("type", json("-")).is_string() ? event.value("type", "-") : "-";
  const auto add = [&](const std::string& name, const json& value) {
    if (value.is_null()) return;
    line += ' ' + name + '=';
    const std::string text = value.is_string() ? value.get<std::string>() : "";
    const bool plain = !text.empty() && text.find_first_of(" \"\n\t") == std::string::npos;
    line += plain ? text : value.dump(-1, ' ', false, json::error_handler_t::replace);
  };
  for (const auto& item : event.items()) {
    if (item.key() != "time_unix_ms" && item.key() != "type" && item.key() != "id") add(item.key(), item.value());
  }
  if (event.contains("id")) add("id", event["id"]);
  return line;
}

}  // namespace coppice
