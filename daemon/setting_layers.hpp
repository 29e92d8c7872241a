// Settings in layers: a flag beats the environment, that beats the file, that beats the default.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace coppice {

// The names under which one may set `option`: "copy-rate" in a file, "COPPICED_COPY_RATE" in the environment.
std::string setting_name(const CLI::Option& option);
std::string environment_name(const CLI::Option& option);

// One setting as it is in force.
struct effective_setting {
  std::string name;
  std::string value;   // as in a file: "\"200M\"", "true", "[\"/a\", \"/b\"]"
  std::string origin;  // "flag", "environment", "file" or "default"
};

// Gives the options of a parsed command line what the lower layers say. Used in the order of the functions, once each.
// Options that are not configurable() are left alone; an empty string sets nothing.
class setting_layers {
 public:
  explicit setting_layers(CLI::App& app);  // `app` outlives it

  // Errors: invalid_argument, naming the variable.
  result<void> apply_environment();
  // Errors: invalid_argument ("FILE:LINE: ..."; also for a key that is no option), not_found, io.
  result<void> apply_file(const std::filesystem::path& file);

  std::vector<effective_setting> effective() const;

 private:
  result<void> set(CLI::Option& option, const std::vector<std::string>& values, const char* origin,
                   const std::string& where);
  CLI::Option* find(const std::string& name) const;

  std::vector<CLI::Option*> options_;
  std::map<const CLI::Option*, std::string> origins_;
};

}  // namespace coppice
