// The HTTP server of coppiced: one thread of its own, any number of connections, nothing that waits.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/access.hpp"
#include "api/allowed_paths.hpp"
#include "api/idempotency_cache.hpp"
#include "api/routes.hpp"
#include "base/result.hpp"
#include "base/tls_files.hpp"
#include "control_plane/control_plane.hpp"

namespace coppice {

// What became of one request.
struct request_record {
  std::string_view route = "none";  // the pattern; "none" if no route fits
  std::string_view method;          // as sent
  std::string_view target;          // as sent, as far as it may be recorded: see recordable_target()
  std::string_view id;              // its X-Request-Id
  std::string_view who;             // name of the token; "none" if one was needed and not given
  std::string_view peer;            // address and port, or "unix"
  unsigned status = 0;
  std::chrono::duration<double> took{};
  bool may_have_changed = false;             // it was handed on, and is of a method that changes something
  const request_details* details = nullptr;  // what it named and made; may be null
  bool replayed = false;                     // the answer of an earlier request with the same Idempotency-Key
};

// What became of a connection.
struct connection_record {
  enum class change { opened, closed, refused, tls_failed };  // refused: there were `client_limits::connections`
  change what = change::opened;
  std::string_view peer;
  std::string_view reason;  // of a TLS handshake's failure
  std::size_t open = 0;     // connections that there are now
};

// What a client may take of the server.
struct client_limits {
  std::size_t body_bytes = mib;                    // more is answered by 413
  std::size_t header_bytes = 16 * kib;             // more is answered by 431
  std::size_t connections = 1000;                  // at once; more are answered by 503 and closed
  std::chrono::milliseconds idle_timeout{60'000};  // waiting for a whole request header, also between requests
  std::chrono::milliseconds body_timeout{15'000};  // from header to end of body
  std::chrono::milliseconds write_timeout{15'000};
  std::chrono::milliseconds handshake_timeout{10'000};  // of TLS
};

struct api_server_options {
  client_limits limits = {};
  std::optional<tls_files> tls = {};             // with a CA: only clients that show a certificate of it
  std::shared_ptr<const token_set> tokens = {};  // none: everybody may do everything
  allowed_paths paths = {};                      // of kernels and drives
  bool refuses_web_pages = false;                // by 403: see may_be_of_a_web_page()
  std::chrono::milliseconds heartbeat{15'000};   // a comment on an event stream that is silent for so long
  std::size_t events_kept = 1000;                // for clients that come back with Last-Event-ID
  idempotency_limits idempotency = {};
  // Asked before each request that may change something, on the server's thread; must not block. False: it is answered
  // by 503. For an audit log that has no room for its line.
  std::function<bool()> may_change = {};
  // Told of each answer, on the server's thread; must not block. For metrics.
  std::function<void(const request_record&)> on_request = {};
  // Told of each connection, likewise. One whose TLS fails has been opened before, and is closed after.
  std::function<void(const connection_record&)> on_connection = {};
};

// Thread-safe. Owned by main; the control plane must outlive it.
class api_server {
 public:
  // Listens on `address` ("127.0.0.1", "::1", or "unix:/path": a socket that only this user may use); port 0 takes a
  // free one. Errors: invalid_argument (no such address; a TLS file that can't be used), conflict (address in use), io.
  static result<std::unique_ptr<api_server>> start(const std::string& address, std::uint16_t port, control_plane& plane,
                                                   api_server_options options = {});
  api_server(const api_server&) = delete;
  api_server& operator=(const api_server&) = delete;
  ~api_server();  // stop() without grace

  std::uint16_t port() const noexcept;
  const std::string& address() const noexcept;

  // From the next request on; event streams whose token is none any more are ended.
  void set_tokens(std::shared_ptr<const token_set> tokens);
  // For connections and requests that begin from now on; a wait that has begun keeps its time-out, and no connection is
  // closed for being one too many.
  void set_limits(const client_limits& limits);

  // Calls `then` on the server's thread, after what that is at; not at all once it has stopped.
  void post(std::function<void()> then);

  // Takes no more connections or requests; what waits for the control plane still gets its answer. Returns at once.
  void begin_stop();
  // begin_stop, waits up to `grace` for the answers still due, closes everything. Idempotent. Completions that come
  // later are dropped.
  void stop(std::chrono::milliseconds grace);

 private:
  struct impl;
  explicit api_server(std::unique_ptr<impl> state);
  std::unique_ptr<impl> impl_;
};

}  // namespace coppice
