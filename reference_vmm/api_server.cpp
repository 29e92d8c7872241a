#include "reference_vmm/api_server.hpp"

#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>

namespace coppice::reference {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using unix_stream = asio::local::stream_protocol;

constexpr std::uint64_t body_limit = 51'200;  // micro_http's

[[noreturn]] void end_process() {
  std::fflush(stdout);
  ::_exit(1);
}

// Carries out the request, with the faults that strike it. No answer: it hangs, and with it everything behind.
api_answer carry_out(api_handler& handler, fault_plan& faults, std::string_view method, std::string_view path,
                     std::string_view body) {
  std::chrono::milliseconds before_answer{};
  for (const fault& each : faults.strike(method, path)) {
    switch (each.kind) {
      case fault_kind::delay:
        std::this_thread::sleep_for(each.wait);
        break;
      case fault_kind::delay_after:
        before_answer += each.wait;
        break;
      case fault_kind::fail:
        return refusal("told to fail by --fault");
      case fault_kind::hang:
        for (;;) ::pause();
      case fault_kind::exit:
        end_process();
    }
  }
  auto answer = handler.handle(method, path, body);
  std::this_thread::sleep_for(before_answer);
  return answer;
}

class connection : public std::enable_shared_from_this<connection> {
 public:
  connection(unix_stream::socket socket, api_handler& handler, fault_plan& faults)
      : socket_(std::move(socket)), handler_(handler), faults_(faults) {}

  void read() {
    parser_.emplace();
    parser_->body_limit(body_limit);
    http::async_read(socket_, buffer_, *parser_, [self = shared_from_this()](beast::error_code failure, std::size_t) {
      if (!failure) return self->handle();
      if (failure == http::error::body_limit)
        return self->answer(refusal("Request payload is larger than 51200 bytes."), false);
      const bool left = failure == http::error::end_of_stream || failure == http::error::partial_message;
      if (!left && failure.category() == http::make_error_code(http::error::bad_method).category())
        self->answer(refusal("This is no HTTP request: " + failure.message() + "."), false);
      // Otherwise the peer left: so does this.
    });
  }

 private:
  void handle() {
    const auto request = parser_->release();
    const auto method = request.method_string(), target = request.target();
    answer(carry_out(handler_, faults_, {method.data(), method.size()}, {target.data(), target.size()}, request.body()),
           request.keep_alive());
  }

  void answer(api_answer made, bool keep_alive) {
    response_.emplace(static_cast<http::status>(made.status), 11);
    response_->set(http::field::server, "Firecracker API");
    response_->keep_alive(keep_alive);
    if (!made.body.empty()) {
      response_->set(http::field::content_type, "application/json");
      response_->body() = std::move(made.body);
      response_->prepare_payload();
    }
    http::async_write(
        socket_, *response_,
        [self = shared_from_this(), keep_alive, ends = made.ends_process](beast::error_code failure, std::size_t) {
          if (ends) end_process();
          if (!failure && keep_alive) self->read();
        });
  }

  unix_stream::socket socket_;
  api_handler& handler_;
  fault_plan& faults_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
};

void accept_next(unix_stream::acceptor& acceptor, api_handler& handler, fault_plan& faults) {
  acceptor.async_accept([&](beast::error_code failure, unix_stream::socket socket) {
    if (!failure) {
      std::make_shared<connection>(std::move(socket), handler, faults)->read();
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));  // e.g. out of descriptors: accept fails at once
    }
    accept_next(acceptor, handler, faults);
  });
}

}  // namespace

result<void> serve_api(const std::filesystem::path& socket, api_handler& handler, fault_plan& faults) {
  std::error_code problem;
  if (std::filesystem::exists(socket, problem)) {
    return error{errc::already_exists, 0, "API socket " + socket.string() + " exists: remove it, or name another"};
  }
  asio::io_context context(1);
  unix_stream::acceptor acceptor(context);
  beast::error_code failure;
  acceptor.open(unix_stream(), failure);
  // An endpoint that is too long throws: said like every other failure.
  if (!failure && socket.native().size() < 108) acceptor.bind(unix_stream::endpoint(socket.string()), failure);
  if (socket.native().size() >= 108) failure = beast::errc::make_error_code(beast::errc::filename_too_long);
  if (!failure) acceptor.listen(asio::socket_base::max_listen_connections, failure);
  if (failure) return error{errc::io, failure.value(), "listen at " + socket.string()};
  accept_next(acceptor, handler, faults);
  context.run();
  return {};
}

}  // namespace coppice::reference
