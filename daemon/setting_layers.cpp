#include "daemon/setting_layers.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "base/file.hpp"
#include "options/config_file.hpp"

namespace coppice {
namespace {

bool is_list(const CLI::Option& option) {
  return option.get_items_expected_max() > 1;
}
bool is_flag(const CLI::Option& option) {
  return option.get_items_expected_max() == 0;
}

std::vector<std::string> split_at_colons(const std::string& text) {
  auto parts = CLI::detail::split(text, ':');
  std::erase(parts, "");
  return parts;
}

std::string shown_value(const CLI::Option& option) {
  const auto& given = option.results();
  if (is_list(option)) {
    std::string list;
    for (const auto& each : given) list.append(list.empty() ? "" : ", ").append(quoted_for_config(each));
    return "[" + list + "]";
  }
  const std::string value = given.empty() ? option.get_default_str() : given.back();
  if (is_flag(option)) return value == "true" || value == "1" ? "true" : "false";
  return quoted_for_config(value);
}

}  // namespace

std::string setting_name(const CLI::Option& option) {
  return option.get_lnames().empty() ? std::string() : option.get_lnames().front();
}

std::string environment_name(const CLI::Option& option) {
  std::string name = "COPPICED_" + setting_name(option);
  std::ranges::transform(name, name.begin(), [](char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  });
  return name;
}

setting_layers::setting_layers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (!option->get_configurable()) continue;
    options_.push_back(option);
    origins_[option] = option->count() > 0 ? "flag" : "default";
  }
}

CLI::Option* setting_layers::find(const std::string& name) const {
  const auto found = std::ranges::find_if(options_, [&](const auto* option) { return setting_name(*option) == name; });
  return found == options_.end() ? nullptr : *found;
}

result<void> setting_layers::set(CLI::Option& option, const std::vector<std::string>& values, const char* origin,
                                 const std::string& where) {
  const bool empty = std::ranges::all_of(values, [](const std::string& value) { return value.empty(); });
  if (empty || option.count() > 0) return {};
  try {
    for (const auto& value : values) option.add_result(value);
    option.run_callback();
  } catch (const CLI::Error& failure) {
    return error{errc::invalid_argument, 0, where + ": " + failure.what()};
  }
  origins_[&option] = origin;
  return {};
}

result<void> setting_layers::apply_environment() {
  for (CLI::Option* option : options_) {
    const std::string name = environment_name(*option);
    const char* const value = std::getenv(name.c_str());
    if (value == nullptr) continue;
    const auto values = is_list(*option) ? split_at_colons(value) : std::vector<std::string>{value};
    COPPICE_TRY(set(*option, values, "environment", name));
  }
  return {};
}

result<void> setting_layers::apply_file(const std::filesystem::path& file) {
  const auto text = read_text_file(file);
  if (!text.ok())
    return error{text.error().code, text.error().sys_errno, "configuration file: " + text.error().context};
  const auto entries = parse_config(*text, file.string());
  if (!entries.ok()) return entries.error();
  for (const config_entry& entry : *entries) {
    const std::string where = file.string() + ":" + std::to_string(entry.line);
    CLI::Option* const option = find(entry.key);
    if (option == nullptr) {
      return error{errc::invalid_argument, 0,
                   where + ": there is no setting " + entry.key + "; coppiced --help lists all"};
    }
    if (entry.values.size() > 1 && !is_list(*option)) {
      return error{errc::invalid_argument, 0, where + ": " + entry.key + " takes one value, no list"};
    }
    COPPICE_TRY(set(*option, entry.values, "file", where));
  }
  return {};
}

std::vector<effective_setting> setting_layers::effective() const {
  std::vector<effective_setting> all;
  for (const CLI::Option* option : options_) {
    all.push_back({setting_name(*option), shown_value(*option), origins_.at(option)});
  }
  return all;
}

}  // namespace coppice
