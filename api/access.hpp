// Who may do what: bearer tokens, and the callers that they name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/digest.hpp"
#include "base/result.hpp"

namespace coppice {

enum class access_role { none, read, write };

struct caller {
  std::string name = "local";  // of the token; or what is known of a client that needs none
  access_role role = access_role::write;
};

// The tokens of a file, as digests. Immutable: usable from any thread.
class token_set {
 public:
  // Reads lines "name role token" (role: read or write; # begins a comment; at least one). The file must not be
  // accessible by others. Errors: invalid_argument, saying which line is wrong (never what stands there); io.
  static result<token_set> load(const std::filesystem::path& file);
  static result<token_set> parse(std::string_view text, const std::string& file);

  // Compares with every token, each in constant time: how long it takes tells neither which one nor how much of it
  // fits.
  std::optional<caller> find(std::string_view token) const;
  std::optional<caller> find(const sha256_digest& token) const;
  std::size_t size() const noexcept { return tokens_.size(); }

 private:
  struct known_token {
    caller who;
    sha256_digest digest;
  };
  result<void> add(const std::vector<std::string>& words);

  std::vector<known_token> tokens_;
};

// What follows "Bearer " in an Authorization header; empty if it is none.
std::string_view bearer_token(std::string_view authorization);

// Whether a browser may have sent a request with these headers for a page of somebody else's: it has an Origin; is for
// a host with a name, that the page's owner may have made point here (DNS rebinding); or the browser says in
// Sec-Fetch-Site that a page asks, as it does of images and scripts, which have no Origin (W3C, Fetch Metadata).
bool may_be_of_a_web_page(std::string_view origin, std::string_view host, std::string_view fetch_site);

}  // namespace coppice
