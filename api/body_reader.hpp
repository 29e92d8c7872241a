// Reads the fields of a JSON object and remembers the first thing that is wrong with it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace coppice {

// For one body, on one thread. Getters return nothing for a field that is absent or null, or once something failed.
class body_reader {
 public:
  // An empty (or blank) body counts as {}. A field that is not in `known` is an error.
  body_reader(std::string_view body, const std::vector<std::string_view>& known);

  std::optional<std::string> text(const char* name);
  // A list of strings that is not empty.
  std::optional<std::vector<std::string>> texts(const char* name);
  std::optional<bool> flag(const char* name);
  // An integer from `least` to `most`.
  std::optional<std::uint64_t> number(const char* name, std::uint64_t least, std::uint64_t most);
  // The text of a field that must be there and not empty.
  std::string required_text(const char* name);
  bool has(const char* name) const;

  // Records `message` if nothing failed before.
  void fail(std::string message);
  // Records `failure` if nothing failed before.
  void fail(error failure);
  const std::optional<error>& failure() const noexcept { return failure_; }

 private:
  void read(std::string_view body, const std::vector<std::string_view>& known);
  const nlohmann::json* find(const char* name) const;

  nlohmann::json object_ = nlohmann::json::object();
  std::optional<error> failure_;
};

}  // namespace coppice
