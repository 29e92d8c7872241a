// One connection of the API server.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>

#include "api/routes.hpp"
#include "api/server.hpp"
#include "api/tls.hpp"
#include "base/log.hpp"

namespace coppice {

class http_connection;

// "127.0.0.1:4711", "unix"; "gone" if the client left.
std::string peer_address(boost::asio::generic::stream_protocol::socket& connected);

// Where completions, that come on any thread, hand over to the server's thread. Outlives the server if a completion
// does.
class reply_gate {
 public:
  explicit reply_gate(boost::asio::io_context& context) : context_(&context) {}
  // Gives `answer` to the connection, unless that or the server is gone.
  void deliver(std::weak_ptr<http_connection> to, route_answer answer);
  // Runs `work` on the server's thread, unless the server is gone.
  void post(std::function<void()> work);
  void close();

 private:
  std::mutex mutex_;
  boost::asio::io_context* context_;
};

// What the connections of a server share. Used on the server's thread only.
struct server_core {
  route_services services;
  api_server_options options;
  std::shared_ptr<tls_context> tls;  // may be null
  std::shared_ptr<reply_gate> gate;
  std::unordered_set<std::shared_ptr<http_connection>> connections;  // their owner
  bool stopping = false;
  std::function<void()> on_closed;  // after a connection left `connections`

  void tell(connection_record::change what, std::string_view peer, std::string_view reason = {}) const {
    if (options.on_connection) options.on_connection({what, peer, reason, connections.size()});
  }
};

// Reads a request, hands it to the routes, writes the answer; again, until either side ends it. All on the server's
// thread.
class http_connection : public std::enable_shared_from_this<http_connection> {
 public:
  using socket = boost::asio::generic::stream_protocol::socket;

  http_connection(socket&& connected, server_core& core);

  void start();
  // Closes now if no answer is due; else after the answer.
  void finish();
  void close();
  void reply(route_answer answer);
  void send_new_events();  // if it is an event stream
  void end_if_revoked();   // if it is one whose token is none any more

 private:
  using parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using response = boost::beast::http::response<boost::beast::http::string_body>;

  // Calls `use` with the stream to read and write by.
  template <class F>
  void with_stream(F use) {
    if (tls_) return use(*tls_);
    use(stream_);
  }

  void read_header();
  void on_header(boost::beast::error_code failure);
  void read_body();
  void on_body(boost::beast::error_code failure);
  void refuse(boost::beast::error_code failure);
  void refuse(route_answer answer);
  void on_written(boost::beast::error_code failure);
  void drain_then_close();
  void say_goodbye();
  void perform(bool keep_alive);
  void take_names(const parser::value_type& message);
  caller identify() const;
  void tell(const route_answer& answer) const;
  void log_request(spdlog::level::level_enum level, const std::string& target, unsigned status,
                   std::chrono::duration<double> took) const;

  // event_stream.cpp
  void stream_events(const route_answer& answer);
  void watch_for_the_client_leaving();
  void send_text(std::string text);
  void await_heartbeat();

  server_core& core_;
  plain_stream stream_;
  std::optional<tls_stream> tls_;
  boost::beast::flat_buffer buffer_;  // bounded: the parser waits for the end of a chunk's first line in it
  std::optional<parser> parser_;
  std::optional<response> response_;
  std::chrono::steady_clock::time_point began_;
  std::size_t drained_bytes_ = 0;
  std::string method_ = "none";
  std::string target_;
  std::string request_id_;
  std::string peer_;
  std::string local_name_ = "local";  // of a client that needs no token
  sha256_digest token_{};             // that came with the request
  caller from_;                       // who sent it
  bool may_have_changed_ = false;     // the request was handed on, and may have changed something
  bool answer_due_ = false;           // a request is with the control plane, or its answer is being written
  bool keep_alive_ = true;
  boost::asio::steady_timer heartbeat_;
  std::string outgoing_;
  std::uint64_t events_seen_ = 0;  // id of the latest one that was sent
  bool streaming_ = false;
  bool sending_ = false;
  bool unread_input_ = false;  // the client may still be sending: closing at once would reset what it should read
};

}  // namespace coppice
