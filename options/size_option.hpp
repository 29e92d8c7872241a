// Sizes on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/units.hpp"

namespace coppice {

// Refuses what parse_bytes() refuses, with its message.
inline CLI::Validator is_size() {
  return {[](std::string& text) {
            const auto parsed = parse_bytes(text);
            return parsed.ok() ? std::string() : parsed.error().message();
          },
          "SIZE"};
}

}  // namespace coppice
