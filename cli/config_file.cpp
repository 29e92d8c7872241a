#include "cli/config_file.hpp"

#include <algorithm>

namespace coppice {
namespace {

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

// Goes over the text once. A function that fails has told `failure_` what is wrong.
class config_parser {
 public:
  config_parser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  result<std::vector<config_entry>> parse() {
    std::vector<config_entry> entries;
    for (skip_blank_lines(); !at_end(); skip_blank_lines()) {
      config_entry entry;
      if (!parse_entry(entry)) return failure_;
      const auto same = [&](const config_entry& other) { return other.key == entry.key; };
      if (const auto first = std::ranges::find_if(entries, same); first != entries.end()) {
        line_ = entry.line;
        wrong(entry.key + " stands in line " + std::to_string(first->line) + " already");
        return failure_;
      }
      entries.push_back(std::move(entry));
    }
    return entries;
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? '\n' : text_[at_]; }
  char take() {
    const char c = text_[at_++];
    if (c == '\n') ++line_;
    return c;
  }

  bool wrong(const std::string& what) {
    failure_ = {errc::invalid_argument, 0, file_ + ":" + std::to_string(line_) + ": " + what};
    return false;
  }

  void skip_spaces() {
    while (!at_end() && (peek() == ' ' || peek() == '\t' || peek() == '\r')) take();
    if (peek() != '#') return;
    while (!at_end() && peek() != '\n') take();
  }
  void skip_blank_lines() {
    for (skip_spaces(); !at_end() && peek() == '\n'; skip_spaces()) take();
  }

  bool parse_entry(config_entry& entry) {
    entry.line = line_;
    if (peek() == '[') return wrong("a section: settings have none");
    while (!at_end() && is_key_character(peek())) entry.key += take();
    skip_spaces();
    if (entry.key.empty() || peek() != '=') return wrong("a line must be 'key = value', e.g. copy-rate = \"200M\"");
    take();
    skip_spaces();
    if (!(peek() == '[' ? parse_list(entry) : parse_value(entry))) return false;
    skip_spaces();
    return peek() == '\n' || wrong("something follows the value of " + entry.key);
  }

  bool parse_list(config_entry& entry) {
    take();
    for (skip_blank_lines(); peek() != ']'; skip_blank_lines()) {
      if (at_end()) return wrong("the list of " + entry.key + " has no end");
      if (!parse_value(entry)) return false;
      skip_blank_lines();
      if (peek() == ',') {
        take();
      } else if (peek() != ']') {
        return wrong("a comma or ] must follow a value in the list of " + entry.key);
      }
    }
    take();
    return true;
  }

  bool parse_value(config_entry& entry) {
    std::string value;
    if (peek() == '"' || peek() == '\'') {
      if (!parse_string(entry.key, value)) return false;
    } else {
      while (!at_end() && is_key_character(peek())) value += take();
      const bool number = !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
      if (!number && value != "true" && value != "false") {
        return wrong("the value of " + entry.key + " must be a string in quotes, a whole number, true or false");
      }
    }
    entry.values.push_back(std::move(value));
    return true;
  }

  bool parse_string(const std::string& key, std::string& value) {
    const char quote = take();
    while (peek() != quote) {
      if (peek() == '\n') return wrong("the string of " + key + " has no closing quote");
      char c = take();
      if (quote == '"' && c == '\\') {
        if (peek() != '"' && peek() != '\\')
          return wrong(R"(in the string of )" + key + R"(: only \" and \\ follow a \)");
        c = take();
      }
      value += c;
    }
    take();
    return true;
  }

  const std::string_view text_;
  const std::string& file_;
  std::size_t at_ = 0;
  unsigned line_ = 1;
  error failure_;
};

}  // namespace

result<std::vector<config_entry>> parse_config(std::string_view text, const std::string& file) {
  return config_parser(text, file).parse();
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
