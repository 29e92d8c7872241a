#include "api/http_connection.hpp"

#include <netdb.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/post.hpp>
#include <exception>

#include "api/request_id.hpp"
#include "base/log.hpp"

namespace coppice {

namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

constexpr std::size_t most_drained_bytes = 16 * mib;
constexpr std::size_t most_read_at_once = 64 * kib;
constexpr std::chrono::seconds drain_timeout{2};

struct peer {
  std::string address;  // "127.0.0.1:4711", "unix"
  std::string user;     // "uid 0" at the other end of a unix socket
};

peer peer_of(http_connection::socket& connected) {
  const int fd = connected.native_handle();
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  // SAFETY: getpeername(2) takes every address family by this cast; sockaddr_storage holds any.
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::getpeername(fd, generic, &length) != 0) return {"gone", {}};
  if (address.ss_family == AF_UNIX) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return {"unix", {}};
    return {"unix", "uid " + std::to_string(credentials.uid)};
  }
  const int flags = NI_NUMERICHOST | NI_NUMERICSERV;
  if (::getnameinfo(generic, length, host, sizeof host, port, sizeof port, flags) != 0) return {"unknown", {}};
  return {std::string(host) + ":" + port, {}};
}

// Whether a proxy before us sees the request end where we do: any other coding has no end that all agree on
// (RFC 9112, 6.1), and the parser passes over it.
bool splits_as_everywhere(const http::fields& header, unsigned version) {
  const auto coding = header.find(http::field::transfer_encoding);
  return coding == header.end() || (version >= 11 && beast::iequals(coding->value(), "chunked"));
}

}  // namespace

std::string peer_address(http_connection::socket& connected) {
  return peer_of(connected).address;
}

void reply_gate::deliver(std::weak_ptr<http_connection> to, route_answer answer) {
  post([to = std::move(to), answer = std::move(answer)] {
    if (const auto connection = to.lock()) connection->reply(answer);
  });
}

void reply_gate::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (context_ != nullptr) boost::asio::post(*context_, std::move(work));
}

void reply_gate::close() {
  const std::lock_guard lock(mutex_);
  context_ = nullptr;
}

http_connection::http_connection(socket&& connected, server_core& core)
    : core_(core),
      stream_(std::move(connected)),
      buffer_(core.options.limits.header_bytes + most_read_at_once),
      heartbeat_(stream_.get_executor()) {
  const auto peer = peer_of(stream_.socket());
  peer_ = peer.address;
  if (!peer.user.empty()) local_name_ = peer.user;
  if (core.tls) tls_.emplace(stream_, *core.tls);
}

void http_connection::start() {
  core_.tell(connection_record::change::opened, peer_);
  if (!tls_) return read_header();
  stream_.expires_after(core_.options.limits.handshake_timeout);
  tls_->async_handshake(tls_stream::server, [self = shared_from_this()](beast::error_code failure) {
    if (failure) {
      spdlog::info("no TLS with {}: {}", self->peer_, failure.message());
      self->core_.tell(connection_record::change::tls_failed, self->peer_, failure.message());
      return self->close();
    }
    if (const auto name = peer_common_name(*self->tls_); !name.empty()) self->local_name_ = "certificate " + name;
    self->read_header();
  });
}

void http_connection::finish() {
  keep_alive_ = false;
  if (!answer_due_) close();
}

void http_connection::close() {
  streaming_ = false;
  heartbeat_.cancel();
  beast::error_code ignored;
  stream_.socket().shutdown(boost::asio::socket_base::shutdown_both, ignored);
  stream_.close();
  if (core_.connections.erase(shared_from_this()) == 0) return;
  core_.tell(connection_record::change::closed, peer_);
  if (core_.on_closed) core_.on_closed();
}

void http_connection::read_header() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(core_.options.limits.header_bytes));
  parser_->body_limit(core_.options.limits.body_bytes);
  stream_.expires_after(core_.options.limits.idle_timeout);
  with_stream([this](auto& stream) {
    http::async_read_header(
        stream, buffer_, *parser_,
        [self = shared_from_this()](beast::error_code failure, std::size_t) { self->on_header(failure); });
  });
}

void http_connection::on_header(beast::error_code failure) {
  if (failure) return refuse(failure);
  began_ = std::chrono::steady_clock::now();
  answer_due_ = true;
  take_names(parser_->get());
  if (!splits_as_everywhere(parser_->get(), parser_->get().version())) {
    return refuse(failure_answer(400, "Transfer-Encoding must be chunked, and HTTP/1.1"));
  }
  if (from_.role == access_role::none && !parser_->is_done()) {
    unread_input_ = true;  // nothing that is open to such a caller takes a body: it isn't waited for
    return perform(false);
  }
  if (!beast::iequals(parser_->get()[http::field::expect], "100-continue")) return read_body();
  const auto proceed = std::make_shared<http::response<http::empty_body>>(http::status::continue_, 11);
  stream_.expires_after(core_.options.limits.write_timeout);
  with_stream([&](auto& stream) {
    http::async_write(stream, *proceed, [self = shared_from_this(), proceed](beast::error_code error, std::size_t) {
      if (error) return self->close();
      self->read_body();
    });
  });
}

void http_connection::read_body() {
  stream_.expires_after(core_.options.limits.body_timeout);
  with_stream([this](auto& stream) {
    http::async_read(stream, buffer_, *parser_,
                     [self = shared_from_this()](beast::error_code failure, std::size_t) { self->on_body(failure); });
  });
}

void http_connection::on_body(beast::error_code failure) {
  if (failure) return refuse(failure);
  perform(parser_->keep_alive());
}

void http_connection::perform(bool keep_alive) {
  stream_.expires_never();  // the control plane has deadlines of its own
  auto& message = parser_->get();
  keep_alive_ = keep_alive && !core_.stopping;
  if (core_.stopping) return reply(failure_answer(503, "coppiced is stopping"));
  const bool reads = method_ == "GET" || method_ == "HEAD";
  // Before all that is told by a line of the audit log.
  if (!reads && core_.options.may_change && !core_.options.may_change()) {
    return reply(failure_answer(503,
                                "the audit log can't be written, so that nothing may be changed: its disk is stuck or "
                                "too slow; reads are served"));
  }
  const std::string origin(message[http::field::origin]);
  const std::string host(message[http::field::host]);
  const std::string fetch_site(message["Sec-Fetch-Site"]);
  if (core_.options.refuses_web_pages && may_be_of_a_web_page(origin, host, fetch_site)) {
    return reply(failure_answer(403,
                                "web pages are not served: send no Origin, and name coppiced by its IP address or as "
                                "localhost; or start it with --token-file"));
  }
  std::optional<std::string> key;
  if (const auto found = message.find("Idempotency-Key"); found != message.end()) key = std::string(found->value());
  route_request request{
      method_, target_,    std::move(message.body()), std::move(key), std::string(message["Last-Event-ID"]),
      from_,   request_id_};
  may_have_changed_ = !reads;
  try {
    handle_request(
        core_.services, std::move(request),
        [gate = core_.gate, self = weak_from_this()](route_answer answer) { gate->deliver(self, std::move(answer)); });
  } catch (const std::exception& failure_of_ours) {
    spdlog::error("{} {}: {}; request {}", method_, target_, failure_of_ours.what(), request_id_);
    reply(failure_answer(500, "internal error: " + std::string(failure_of_ours.what())));
  }
}

// A request that could not be read: answers what the client can do something about, and closes.
void http_connection::refuse(beast::error_code failure) {
  const bool client_left = failure == http::error::end_of_stream || failure == beast::error::timeout ||
                           failure.category() != make_error_code(http::error::bad_method).category();
  if (client_left || failure == http::error::partial_message) return close();
  began_ = std::chrono::steady_clock::now();
  take_names(parser_->get());
  if (failure == http::error::body_limit) {
    return refuse(failure_answer(413, "the body is larger than " + format_bytes(core_.options.limits.body_bytes)));
  }
  if (failure == http::error::buffer_overflow && parser_->is_header_done()) {
    return refuse(failure_answer(400, "malformed HTTP request: a chunk's first line or the trailer is too long"));
  }
  if (failure == http::error::header_limit || failure == http::error::buffer_overflow) {
    return refuse(failure_answer(431, "the header is larger than " + format_bytes(core_.options.limits.header_bytes)));
  }
  refuse(failure_answer(400, "malformed HTTP request: " + failure.message()));
}

void http_connection::refuse(route_answer answer) {
  answer_due_ = true;
  keep_alive_ = false;
  unread_input_ = true;
  reply(std::move(answer));
}

void http_connection::reply(route_answer answer) {
  if (!answer_due_ || response_ || !stream_.socket().is_open()) return;  // a second answer, or the client left
  if (core_.stopping) keep_alive_ = false;
  tell(answer);
  if (answer.streams_events) return stream_events(answer);
  response_.emplace(static_cast<http::status>(answer.status), 11);
  response_->keep_alive(keep_alive_);
  response_->set("X-Request-Id", request_id_);
  if (answer.status == 401) response_->set(http::field::www_authenticate, "Bearer realm=\"coppiced\"");
  if (answer.replayed) response_->set("Idempotency-Replayed", "true");
  if (!answer.allow.empty()) response_->set(http::field::allow, answer.allow);
  if (answer.status != 204 && method_ != "HEAD") {  // neither has a body: RFC 9110
    response_->set(http::field::content_type, answer.content_type);
    response_->body() = std::move(answer.body);
    response_->prepare_payload();
  }
  stream_.expires_after(core_.options.limits.write_timeout);
  with_stream([this](auto& stream) {
    http::async_write(stream, *response_, [self = shared_from_this()](beast::error_code failure, std::size_t) {
      self->on_written(failure);
    });
  });
}

// What is known of the request, from its header as far as that came.
void http_connection::take_names(const parser::value_type& message) {
  method_ = std::string(message.method_string());
  target_ = std::string(message.target());
  request_id_ = request_id(std::string(message["X-Request-Id"]));
  may_have_changed_ = false;
  const std::string authorization(message[http::field::authorization]);
  if (core_.options.tokens) token_ = sha256(bearer_token(authorization));
  from_ = identify();
}

caller http_connection::identify() const {
  const auto& tokens = core_.options.tokens;
  if (!tokens) return {local_name_, access_role::write};
  return tokens->find(token_).value_or(caller{"none", access_role::none});
}

void http_connection::log_request(spdlog::level::level_enum level, const std::string& target, unsigned status,
                                  std::chrono::duration<double> took) const {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
  const std::array<log_field, 8> fields{{{"event", "request"},
                                         {"request_id", request_id_},
                                         {"method", method_},
                                         {"path", target},
                                         {"status", static_cast<std::int64_t>(status)},
                                         {"duration_us", static_cast<std::int64_t>(us)},
                                         {"who", from_.name},
                                         {"peer", peer_}}};
  log_with(
      level,
      fmt::format("{} {}: {} after {:.1f} ms; request {}", method_, target, status, took.count() * 1000, request_id_),
      fields);
}

void http_connection::tell(const route_answer& answer) const {
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
  const auto level = method_ == "GET" && answer.status < 500 ? spdlog::level::debug : spdlog::level::info;
  const std::string target = recordable_target(target_);
  if (spdlog::should_log(level)) log_request(level, target, answer.status, took);
  if (core_.options.on_request) {
    core_.options.on_request({answer.route, method_, target, request_id_, from_.name, peer_, answer.status, took,
                              may_have_changed_, answer.details.get(), answer.replayed});
  }
}

void http_connection::on_written(beast::error_code failure) {
  answer_due_ = false;
  response_.reset();
  if (failure) return close();
  if (keep_alive_) return read_header();
  if (unread_input_) {
    beast::error_code ignored;
    stream_.socket().shutdown(boost::asio::socket_base::shutdown_send, ignored);
    stream_.expires_after(drain_timeout);
    return drain_then_close();
  }
  say_goodbye();
}

void http_connection::say_goodbye() {
  if (!tls_) return close();
  stream_.expires_after(drain_timeout);
  tls_->async_shutdown([self = shared_from_this()](beast::error_code) { self->close(); });
}

void http_connection::drain_then_close() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(64 * kib),
                          [self = shared_from_this()](beast::error_code failure, std::size_t got) {
                            self->drained_bytes_ += got;
                            if (failure || self->drained_bytes_ > most_drained_bytes) return self->close();
                            self->drain_then_close();
                          });
}

}  // namespace coppice
