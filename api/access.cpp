#include "api/access.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/secret_file.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {

constexpr std::size_t shortest_token = 16;
constexpr std::size_t longest_token = 512;

error wrong(std::string what) {
  return {errc::invalid_argument, 0, std::move(what)};
}

}  // namespace

result<token_set> token_set::load(const std::filesystem::path& file) {
  const auto opened = open_secret("token file", file);
  if (!opened.ok()) return opened.error();
  const auto text = read_text_file("/proc/self/fd/" + std::to_string(opened->get()));  // the file that was looked at
  if (!text.ok()) return text.error();
  return parse(*text, file.string());
}

result<token_set> token_set::parse(std::string_view text, const std::string& file) {
  token_set tokens;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream parts(line.substr(0, line.find('#')));
    const std::vector<std::string> words{std::istream_iterator<std::string>(parts), {}};
    if (words.empty()) continue;
    if (const auto added = tokens.add(words); !added.ok()) {
      return wrong(file + ", line " + std::to_string(number) + ": " + added.error().message());
    }
  }
  if (tokens.tokens_.empty()) return wrong(file + " has no token: write lines \"name role token\"");
  return tokens;
}

result<void> token_set::add(const std::vector<std::string>& words) {
  if (words.size() != 3) return wrong("a name, a role (read or write) and a token are needed");
  if (!validate_tag(words[0]).ok()) return wrong("the name must be of up to 64 letters, digits and ._-");
  if (words[1] != "read" && words[1] != "write") return wrong("the role must be read or write");
  if (words[2].size() < shortest_token || words[2].size() > longest_token) {
    return wrong("the token must have 16 to 512 characters, e.g. those of `openssl rand -hex 32`");
  }
  const auto digest = sha256(words[2]);
  for (const auto& known : tokens_) {
    if (known.who.name == words[0]) return wrong("the name is given twice");
    if (equal_in_constant_time(known.digest, digest)) return wrong("the token is given twice");
  }
  tokens_.push_back({{words[0], words[1] == "read" ? access_role::read : access_role::write}, digest});
  return {};
}

std::optional<caller> token_set::find(std::string_view token) const {
  return find(sha256(token));
}

std::optional<caller> token_set::find(const sha256_digest& token) const {
  const known_token* found = nullptr;
  for (const auto& known : tokens_) {
    if (equal_in_constant_time(known.digest, token)) found = &known;
  }
  if (found == nullptr) return std::nullopt;
  return found->who;
}

std::string_view bearer_token(std::string_view authorization) {
  static constexpr std::string_view scheme = "bearer ";
  const auto same = [](char left, char right) { return (left >= 'A' && left <= 'Z' ? left + 32 : left) == right; };
  if (authorization.size() < scheme.size()) return {};
  if (!std::ranges::equal(authorization.substr(0, scheme.size()), scheme, same)) return {};
  return authorization.substr(scheme.size());
}

bool may_be_of_a_web_page(std::string_view origin, std::string_view host, std::string_view fetch_site) {
  if (!origin.empty() || (!fetch_site.empty() && fetch_site != "none")) return true;
  if (host.starts_with('[')) return false;  // an IPv6 address
  const std::string name(host.substr(0, host.find(':')));
  in_addr address{};
  return !name.empty() && name != "localhost" && ::inet_pton(AF_INET, name.c_str(), &address) != 1;
}

}  // namespace coppice
