// A synchronous client of coppiced's HTTP API, on libcurl.
#pragma once

#include <chrono>
#include <functional>
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

// Immutable: usable from any thread. One connection a call, so that nothing is sent twice because a kept one had died.
// Asks the server itself, whatever proxy the environment names: a daemon's address is one of this host or its network.
class api_client {
 public:
  // `url`: "http://127.0.0.1:8889", "https://[::1]:8889", "host:port" or "unix:/path". Errors: invalid_argument (no
  // such address; a TLS file that can't be used).
  static result<api_client> create(std::string_view url, client_security security = {});

  // How long one call may take, connecting included. Default: 120 s (a full branch of a large VM takes long).
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ = timeout; }
  const std::string& url() const noexcept { return url_; }

  // Any answer with a status is a success. Errors: unavailable (nobody listens; TLS), deadline_exceeded, io.
  result<http_answer> send(std::string_view method, std::string_view target,
                           const std::optional<std::string>& body = std::nullopt) const;

  // As send, but an answer that is no 2xx is an error of the kind and message that the server gave. The JSON of the
  // answer; null if it has no body. Errors: also corrupt (an answer that is no JSON).
  result<nlohmann::json> get(std::string_view target) const;
  result<nlohmann::json> post(std::string_view target, const nlohmann::json& body) const;
  result<nlohmann::json> remove(std::string_view target) const;

  // Takes the next bytes of a stream, which begin and end anywhere; false: no more are wanted.
  using take_bytes = std::function<bool(std::string_view bytes)>;

  // Hands what GET of `target` answers to `take` as it comes (server-sent events), in the calling thread, until `take`
  // wants no more or the server ends it. It may take for ever, but not be silent for longer than the timeout: the
  // server's heartbeats come every 15 s. `last_event_id`: of the event to go on after; empty: from now on. Errors: as
  // send and get; deadline_exceeded: it was silent.
  result<void> stream(std::string_view target, const take_bytes& take, std::string_view last_event_id = {}) const;

 private:
  class exchange;

  api_client(std::string url, client_security security) : url_(std::move(url)), security_(std::move(security)) {}
  result<nlohmann::json> call(std::string_view method, std::string_view target,
                              const std::optional<std::string>& body) const;
  error refusal(std::string_view target, const http_answer& answer) const;

  std::string url_;  // without a path; or "unix:/path"
  client_security security_;
  std::chrono::milliseconds timeout_{120'000};
};

// `text` as one segment of a path: everything but letters, digits and -._~ is escaped.
std::string path_segment(std::string_view text);

}  // namespace coppice
