#include "options/config_file.hpp"

#include <toml++/toml.h>

#include <algorithm>

namespace coppice {
namespace {

error wrong(const std::string& file, unsigned line, const std::string& what) {
  return {errc::invalid_argument, 0, file + ":" + std::to_string(line) + ": " + what};
}

// As the options take it; nothing for what no setting is: a table, a date, a fraction.
std::optional<std::string> value_of(const toml::node& node) {
  if (const auto* const text = node.as_string()) return text->get();
  if (const auto* const number = node.as_integer()) return std::to_string(number->get());
  if (const auto* const flag = node.as_boolean()) return flag->get() ? "true" : "false";
  return std::nullopt;
}

result<config_entry> entry_of(const std::string& key, const toml::node& node, const std::string& file) {
  config_entry entry{key, {}, node.source().begin.line};
  if (node.is_table()) return wrong(file, entry.line, key + " is a section: settings have none");
  const auto add = [&](const toml::node& one) {
    const auto value = value_of(one);
    if (value) entry.values.push_back(*value);
    return value.has_value();
  };
  const auto* const list = node.as_array();
  if (list != nullptr ? std::ranges::all_of(*list, add) : add(node)) return entry;
  return wrong(file, entry.line, "the value of " + key + " must be a string in quotes, a whole number, true or false");
}

}  // namespace

result<std::vector<config_entry>> parse_config(std::string_view text, const std::string& file) try {
  std::vector<config_entry> entries;
  for (const auto& [key, node] : toml::parse(text, file)) {
    auto entry = entry_of(std::string(key.str()), node, file);
    if (!entry.ok()) return std::move(entry).error();
    entries.push_back(*std::move(entry));
  }
  std::ranges::sort(entries, {}, &config_entry::line);
  return entries;
} catch (const toml::parse_error& failure) {
  return wrong(file, failure.source().begin.line,
               std::string(failure.description()) + "; a setting is written like copy-rate = \"200M\"");
}

std::string quoted_for_config(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace coppice
