// The journal's part of the kernel command line. Freestanding, like journal_layout.hpp.
#pragma once

#include <string_view>

#include "journal_guest/journal_layout.hpp"

namespace coppice::journal {

inline constexpr std::uint64_t longest_rest_us = 1'000'000;

struct options {
  std::uint64_t pages = 4096;  // journal.pages: working set of one lane
  pattern kind = pattern::random;
  std::uint64_t pace_cycles = 0;  // journal.pace: TSC cycles from one step to the next; 0: full speed
  std::uint64_t rest_us = 0;      // journal.rest_us: idle (halted) between two steps, as most guests mostly are
  std::uint64_t threshold_us = 1000;
  std::uint64_t seed = 0x436f7070696365;
};

// What is wrong with a command line: nothing if `message` is empty.
struct option_error {
  std::string_view message;
  std::string_view word;
};

constexpr bool parse_number(std::string_view text, std::uint64_t& value) {
  if (text.empty() || text.size() > 18) return false;
  value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return true;
}

constexpr option_error parse_option(std::string_view word, options& into) {
  constexpr std::string_view prefix = "journal.";
  if (!word.starts_with(prefix)) return {};  // somebody else's: VMMs append words of their own
  std::string_view name = word;
  name.remove_prefix(prefix.size());
  const std::size_t equals = name.find('=');
  if (equals == std::string_view::npos) return {"this option needs a value", word};
  std::string_view value = name;
  value.remove_prefix(equals + 1);
  name.remove_suffix(name.size() - equals);
  if (name == "pattern") {
    if (value == "random") {
      into.kind = pattern::random;
    } else if (value == "sequential") {
      into.kind = pattern::sequential;
    } else if (value == "zipf") {
      into.kind = pattern::zipf;
    } else {
      return {"the patterns are random, sequential and zipf", word};
    }
    return {};
  }
  std::uint64_t* const number = name == "pages"          ? &into.pages
                                : name == "pace"         ? &into.pace_cycles
                                : name == "rest_us"      ? &into.rest_us
                                : name == "threshold_us" ? &into.threshold_us
                                : name == "seed"         ? &into.seed
                                                         : nullptr;
  if (number == nullptr) return {"the options are journal.pages, pattern, pace, rest_us, threshold_us and seed", word};
  if (!parse_number(value, *number)) return {"this option takes a decimal number", word};
  return {};
}

// Reads every word of `command_line`. Words that don't begin with "journal." are left alone.
constexpr option_error parse_options(std::string_view command_line, options& into) {
  while (!command_line.empty()) {
    const std::size_t space = command_line.find(' ');
    const std::size_t length = space == std::string_view::npos ? command_line.size() : space;
    const option_error wrong = parse_option(std::string_view(command_line.data(), length), into);
    if (!wrong.message.empty()) return wrong;
    command_line.remove_prefix(space == std::string_view::npos ? length : length + 1);
  }
  if (into.rest_us > longest_rest_us) return {"journal.rest_us must be at most 1000000", {}};
  if (into.pages == 0 || into.pages > (lanes_end - lanes_address) / page_bytes) {
    return {"journal.pages must be from 1 to 850944", {}};
  }
  return {};
}

// Whether `lanes` lanes fit into RAM that goes on from 1 MiB to `ram_end` (a guest-physical address).
constexpr bool fits(const options& chosen, std::uint64_t lanes, std::uint64_t ram_end) {
  return lane_base(lanes, chosen.pages) <= (ram_end < lanes_end ? ram_end : lanes_end);
}

}  // namespace coppice::journal
