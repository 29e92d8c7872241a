#include "api/server.hpp"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "api/event_log.hpp"
#include "api/guest_exchange.hpp"
#include "api/http_connection.hpp"
#include "api/request_id.hpp"
#include "base/log.hpp"

namespace coppice {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr std::chrono::milliseconds accept_pause{100};  // after e.g. EMFILE
constexpr std::size_t longest_socket_path = 107;        // unix(7): sun_path, with its NUL

error in_use(const std::string& name) {
  return {
      errc::conflict, 0,
      "address " + name + " is in use: is another coppiced running? Stop it, or choose another address with --listen"};
}

std::uint16_t tcp_port(const asio::generic::stream_protocol::endpoint& endpoint) {
  tcp::endpoint ip;
  ip.resize(endpoint.size());
  std::memcpy(ip.data(), endpoint.data(), endpoint.size());
  return ip.port();
}

// A socket that nobody listens on was left by a daemon that was killed. Errors: conflict (it is used, or is no socket).
result<void> remove_stale_socket(asio::io_context& context, const std::string& path) {
  struct stat about {};
  asio::local::stream_protocol::socket probe(context);
  boost::system::error_code failure;
  if (::lstat(path.c_str(), &about) != 0 || !S_ISSOCK(about.st_mode)) return in_use("unix:" + path);
  probe.connect(path, failure);
  if (failure != asio::error::connection_refused) return in_use("unix:" + path);
  if (::unlink(path.c_str()) != 0) return errno_error("remove the old socket " + path);
  return {};
}

}  // namespace

struct api_server::impl {
  impl(control_plane& plane, api_server_options options)
      : core{.services = {plane, std::make_shared<idempotency_cache>(options.idempotency),
                          std::make_shared<event_log>(options.events_kept), options.paths},
             .options = std::move(options),
             .tls = nullptr,
             .gate = std::make_shared<reply_gate>(context),
             .connections = {},
             .stopping = false,
             .on_closed = [this] { closed(); }} {
    core.services.ask_guest = make_guest_exchange(context, core.gate);
  }

  // Binds and listens. Errors as start().
  result<void> listen(const std::string& wanted, std::uint16_t wanted_port);
  result<void> listen_on_unix(const std::string& path);
  void accept();
  void refuse_for_now(http_connection::socket& socket);
  void follow(control_plane& plane);
  void begin_stop();
  void closed();

  asio::io_context context{1};
  // A connection that waits for the control plane has nothing pending: the thread must stay for its answer.
  asio::executor_work_guard<asio::io_context::executor_type> stay{context.get_executor()};
  asio::basic_socket_acceptor<asio::generic::stream_protocol> acceptor{context};
  asio::steady_timer retry{context};
  server_core core;
  std::string address;
  std::uint16_t port = 0;
  std::string socket_path;  // of the unix socket; empty if there is none
  std::mutex mutex;         // for all_closed
  std::condition_variable emptied;
  bool all_closed = false;  // stopping, and no connection is left
  std::thread thread;
};

result<void> api_server::impl::listen(const std::string& wanted, std::uint16_t wanted_port) {
  if (core.options.tls) {
    auto context_of_tls = server_tls(*core.options.tls);
    if (!context_of_tls.ok()) return std::move(context_of_tls).error();
    core.tls = *std::move(context_of_tls);
  }
  address = wanted;
  if (wanted.starts_with("unix:")) return listen_on_unix(wanted.substr(5));
  const std::string name = wanted + ":" + std::to_string(wanted_port);
  boost::system::error_code failure;
  const auto ip = asio::ip::make_address(wanted, failure);
  if (failure)
    return error{errc::invalid_argument, 0, "cannot listen on " + name + ": use an IP address, e.g. 127.0.0.1"};
  const tcp::endpoint endpoint(ip, wanted_port);
  acceptor.open(endpoint.protocol(), failure);
  if (!failure) acceptor.set_option(asio::socket_base::reuse_address(true), failure);
  if (!failure) acceptor.bind(endpoint, failure);
  if (!failure) acceptor.listen(asio::socket_base::max_listen_connections, failure);
  if (failure == asio::error::address_in_use) return in_use(name);
  if (failure) return error{errc::io, failure.value(), "cannot listen on " + name};
  port = tcp_port(acceptor.local_endpoint());
  return {};
}

// Nobody can connect before listen(2), so the mode is set in time.
result<void> api_server::impl::listen_on_unix(const std::string& path) {
  if (path.empty() || path.size() > longest_socket_path) {
    return error{errc::invalid_argument, 0,
                 "cannot listen on unix:" + path + ": a path of 1 to 107 characters is needed"};
  }
  const asio::local::stream_protocol::endpoint endpoint(path);
  boost::system::error_code failure;
  acceptor.open(endpoint.protocol(), failure);
  if (!failure) acceptor.bind(endpoint, failure);
  if (failure == asio::error::address_in_use) {
    COPPICE_TRY(remove_stale_socket(context, path));
    acceptor.bind(endpoint, failure);
  }
  if (!failure && ::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0) return errno_error("chmod " + path);
  if (!failure) acceptor.listen(asio::socket_base::max_listen_connections, failure);
  if (failure) return error{errc::io, failure.value(), "cannot listen on unix:" + path};
  socket_path = path;
  return {};
}

void api_server::impl::accept() {
  acceptor.async_accept([this](boost::system::error_code failure, http_connection::socket socket) {
    if (core.stopping || failure == asio::error::operation_aborted) return;
    if (failure) {
      spdlog::warn("cannot accept a connection: {}", failure.message());
      retry.expires_after(accept_pause);
      return retry.async_wait([this](boost::system::error_code) {
        if (!core.stopping) accept();
      });
    }
    if (core.connections.size() >= core.options.limits.connections) {
      refuse_for_now(socket);
    } else {
      boost::system::error_code ignored;
      if (socket_path.empty()) socket.set_option(tcp::no_delay(true), ignored);
      const auto connection = std::make_shared<http_connection>(std::move(socket), core);
      core.connections.insert(connection);
      connection->start();
    }
    accept();
  });
}

void api_server::impl::refuse_for_now(http_connection::socket& socket) {
  if (core.options.on_connection) core.tell(connection_record::change::refused, peer_address(socket));
  if (core.tls) return;  // no handshake for it: the client sees it closed
  const std::string refusal =
      "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\nX-Request-Id: " +
      request_id("") + "\r\nContent-Length: 33\r\n\r\n{\"error\": \"too many connections\"}";
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(refusal.data(), refusal.size()), ignored);  // fits the empty socket buffer
}

// The control plane may outlive the server: what it holds on to are the log and the gate.
void api_server::impl::follow(control_plane& plane) {
  plane.subscribe([this, events = core.services.events, gate = core.gate](const plane_event& event) {
    events->add(event);
    gate->post([this] {
      const auto connections = core.connections;  // a write that fails removes from the original
      for (const auto& connection : connections) connection->send_new_events();
    });
  });
}

void api_server::impl::begin_stop() {
  if (core.stopping) return;
  core.stopping = true;
  boost::system::error_code ignored;
  acceptor.close(ignored);
  if (!socket_path.empty()) ::unlink(socket_path.c_str());
  retry.cancel();
  const auto connections = core.connections;  // finish() removes from the original
  for (const auto& connection : connections) connection->finish();
  closed();
}

void api_server::impl::closed() {
  if (!core.stopping || !core.connections.empty()) return;
  const std::lock_guard lock(mutex);
  all_closed = true;
  emptied.notify_all();
}

api_server::api_server(std::unique_ptr<impl> state) : impl_(std::move(state)) {}

api_server::~api_server() {
  stop(std::chrono::milliseconds(0));
}

result<std::unique_ptr<api_server>> api_server::start(const std::string& address, std::uint16_t port,
                                                      control_plane& plane, api_server_options options) {
  auto state = std::make_unique<impl>(plane, std::move(options));
  COPPICE_TRY(state->listen(address, port));
  state->follow(plane);
  state->accept();
  state->thread = std::thread([running = state.get()] {
    pthread_setname_np(pthread_self(), "api");
    running->context.run();
  });
  return std::unique_ptr<api_server>(new api_server(std::move(state)));  // NOLINT: the constructor is private
}

std::uint16_t api_server::port() const noexcept {
  return impl_->port;
}
const std::string& api_server::address() const noexcept {
  return impl_->address;
}

void api_server::set_tokens(std::shared_ptr<const token_set> tokens) {
  asio::post(impl_->context, [state = impl_.get(), given = std::move(tokens)] {
    state->core.options.tokens = given;
    const auto connections = state->core.connections;  // one that is closed removes itself from the original
    for (const auto& connection : connections) connection->end_if_revoked();
  });
}

void api_server::set_limits(const client_limits& limits) {
  asio::post(impl_->context, [state = impl_.get(), limits] { state->core.options.limits = limits; });
}

void api_server::post(std::function<void()> then) {
  asio::post(impl_->context, std::move(then));
}

void api_server::begin_stop() {
  asio::post(impl_->context, [state = impl_.get()] { state->begin_stop(); });
}

void api_server::stop(std::chrono::milliseconds grace) {
  if (!impl_->thread.joinable()) return;
  begin_stop();
  {
    std::unique_lock lock(impl_->mutex);
    impl_->emptied.wait_for(lock, grace, [this] { return impl_->all_closed; });
  }
  impl_->core.gate->close();
  asio::post(impl_->context, [state = impl_.get()] {
    const auto connections = state->core.connections;
    for (const auto& connection : connections) connection->close();
    state->context.stop();
  });
  impl_->thread.join();
}

}  // namespace coppice
