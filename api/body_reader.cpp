#include "api/body_reader.hpp"

#include <algorithm>
#include <cmath>

namespace coppice {
namespace {

std::string joined(const std::vector<std::string_view>& names) {
  std::string text;
  for (std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

// nlohmann's sentence without its "[json.exception.parse_error.101] ": it tells line and column.
std::string where_it_breaks(const nlohmann::json::parse_error& failure) {
  const std::string text = failure.what();
  const auto bracket = text.find("] ");
  return bracket == std::string::npos ? text : text.substr(bracket + 2);
}

std::string quoted(const char* name) {
  return '"' + std::string(name) + '"';
}

// Also 2.0 is an integer: to JSON Schema, and to the languages that write it for 2.
std::optional<std::uint64_t> whole_number(const nlohmann::json& value) {
  constexpr double most_exact = 9007199254740992.0;  // 2^53
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (number < 0 || number > most_exact || number != std::floor(number)) return std::nullopt;
  return static_cast<std::uint64_t>(number);
}

}  // namespace

body_reader::body_reader(std::string_view body, const std::vector<std::string_view>& known) {
  read(body, known);
}

void body_reader::read(std::string_view body, const std::vector<std::string_view>& known) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
  try {
    object_ = nlohmann::json::parse(body);
  } catch (const nlohmann::json::parse_error& failure) {
    return fail("the body is no JSON: " + where_it_breaks(failure));
  } catch (const nlohmann::json::exception& failure) {  // e.g. a number out of range
    return fail("the body is no JSON: " + std::string(failure.what()));
  }
  if (!object_.is_object()) {
    return fail("the body must be a JSON object, it is a JSON " + std::string(object_.type_name()));
  }
  for (const auto& item : object_.items()) {
    if (std::ranges::find(known, item.key()) != known.end()) continue;
    return fail("unknown field \"" + item.key().substr(0, 80) + "\": known are " + joined(known));
  }
}

const nlohmann::json* body_reader::find(const char* name) const {
  if (failure_) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool body_reader::has(const char* name) const {
  return find(name) != nullptr;
}

std::optional<std::string> body_reader::text(const char* name) {
  const auto* value = find(name);
  if (!value) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  fail("field " + quoted(name) + " must be a string, it is a JSON " + value->type_name());
  return std::nullopt;
}

std::optional<std::vector<std::string>> body_reader::texts(const char* name) {
  const auto* value = find(name);
  if (!value) return std::nullopt;
  const auto is_text = [](const nlohmann::json& item) { return item.is_string(); };
  if (value->is_array() && !value->empty() && std::ranges::all_of(*value, is_text)) {
    return value->get<std::vector<std::string>>();
  }
  fail("field " + quoted(name) + " must be a list of strings, with at least one");
  return std::nullopt;
}

std::optional<bool> body_reader::flag(const char* name) {
  const auto* value = find(name);
  if (!value) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail("field " + quoted(name) + " must be true or false, it is a JSON " + value->type_name());
  return std::nullopt;
}

std::optional<std::uint64_t> body_reader::number(const char* name, std::uint64_t least, std::uint64_t most) {
  const auto* value = find(name);
  if (!value) return std::nullopt;
  const auto whole = whole_number(*value);
  if (whole && *whole >= least && *whole <= most) return whole;
  fail("field " + quoted(name) + " must be an integer from " + std::to_string(least) + " to " + std::to_string(most) +
       (value->is_number() ? ", it is " + value->dump() : ", it is a JSON " + std::string(value->type_name())));
  return std::nullopt;
}

std::string body_reader::required_text(const char* name) {
  auto value = text(name);
  if (!value) {
    fail("field " + quoted(name) + " is missing");
  } else if (value->empty()) {
    fail("field " + quoted(name) + " must not be empty");
  }
  return value.value_or("");
}

void body_reader::fail(std::string message) {
  fail(error{errc::invalid_argument, 0, std::move(message)});
}

void body_reader::fail(error failure) {
  if (!failure_) failure_ = std::move(failure);
}

}  // namespace coppice
