// A synchronous client of coppiced's HTTP API.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/tls_files.hpp"

namespace coppice {

struct http_answer {
  unsigned status = 0;
  std::string body;
};

// How a client shows who it is, and knows whom it talks to.
struct client_security {
  std::string token;  // empty: none
  tls_files tls;      // for https: CA (empty: the system's), and a certificate where the server wants one
};

// Immutable: usable from any thread. One connection a call. Every call has a deadline.
class api_client {
 public:
  // `url`: "http://127.0.0.1:8889", "https://[::1]:8889", "host:port" or "unix:/path". Errors: invalid_argument (no
  // such address; a TLS file that can't be used).
  static result<api_client> create(std::string_view url, client_security security = {});

  // How long one call may take, connecting included. Default: 120 s (a full branch of a large VM takes long).
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }
  std::string url() const;

  // Any answer with a status is a success. Errors: unavailable (nobody listens), deadline_exceeded, io.
  result<http_answer> send(std::string_view method, std::string_view target,
                           const std::optional<std::string>& body = std::nullopt) const;

  // As send, but an answer that is no 2xx is an error of the kind and message that the server gave. The JSON of the
  // answer; null if it has no body. Errors: also corrupt (an answer that is no JSON).
  result<nlohmann::json> get(std::string_view target) const;
  result<nlohmann::json> post(std::string_view target, const nlohmann::json& body) const;
  result<nlohmann::json> remove(std::string_view target) const;

 private:
  struct address {
    bool secure = false;    // https
    std::string authority;  // "127.0.0.1:8889"; the socket's path if `port` is empty
    std::string host;
    std::string port;
  };
  class exchange;

  api_client(address server, client_security security) : server_(std::move(server)), security_(std::move(security)) {}
  static std::optional<address> parse(std::string_view url);
  result<nlohmann::json> call(std::string_view method, std::string_view target,
                              const std::optional<std::string>& body) const;

  address server_;
  client_security security_;
  std::chrono::milliseconds timeout_{120'000};
};

// `text` as one segment of a path: everything but letters, digits and -._~ is escaped.
std::string path_segment(std::string_view text);

}  // namespace coppice
