#include "api/guest_exchange.hpp"

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "api/http_connection.hpp"
#include "base/units.hpp"

namespace coppice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::size_t most_answer_bytes = 16 * mib;
constexpr std::chrono::seconds connect_patience{5};

// One exchange. Keeps itself alive until `done` was called.
class exchange : public std::enable_shared_from_this<exchange> {
 public:
  exchange(asio::io_context& context, std::string name, std::string line, std::chrono::seconds patience,
           std::function<void(result<std::string>)> done)
      : socket_(context),
        timer_(context),
        name_(std::move(name)),
        line_(std::move(line) + "\n"),
        patience_(patience),
        done_(std::move(done)) {}

  void start(guest_socket& to) {
    error_code failure;
    socket_.assign(tcp::v4(), to.fd.get(), failure);
    if (failure) return end(failed("reach", failure));
    to.fd.release();  // the socket's now
    allow(connect_patience);
    const tcp::endpoint agent(asio::ip::make_address(to.ip), to.port);
    socket_.async_connect(agent, [self = shared_from_this()](error_code error) {
      if (error) return self->end(self->failed("reach", error));
      self->ask();
    });
  }

 private:
  void ask() {
    allow(patience_);
    asio::async_write(socket_, asio::buffer(line_), [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->end(self->failed("ask", error));
      self->socket_.shutdown(tcp::socket::shutdown_send, error);
      self->read();
    });
  }

  void read() {
    socket_.async_read_some(asio::buffer(part_), [self = shared_from_this()](error_code error, std::size_t got) {
      self->answer_.append(self->part_.data(), got);
      if (error == asio::error::eof) return self->end(std::move(self->answer_));
      if (error) return self->end(self->failed("hear", error));
      if (self->answer_.size() > most_answer_bytes) {
        return self->end(
            coppice::error{errc::unavailable, 0,
                           "the agent at " + self->name_ + " sends more than " + format_bytes(most_answer_bytes)});
      }
      self->read();
    });
  }

  void allow(std::chrono::seconds patience) {
    timer_.expires_after(patience);
    timer_.async_wait([self = shared_from_this(), patience](error_code cancelled) {
      if (cancelled) return;
      self->end(coppice::error{
          errc::deadline_exceeded, 0,
          "the agent at " + self->name_ + " did not answer within " + std::to_string(patience.count()) + " s"});
    });
  }

  coppice::error failed(const char* what, error_code failure) const {
    return {errc::unavailable, failure.value(),
            std::string("cannot ") + what + " the agent at " + name_ + " in the sandbox's network namespace"};
  }

  void end(result<std::string> outcome) {
    if (!done_) return;
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
    std::exchange(done_, nullptr)(std::move(outcome));
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  const std::string name_;
  const std::string line_;
  const std::chrono::seconds patience_;
  std::function<void(result<std::string>)> done_;
  std::array<char, 64 * kib> part_{};
  std::string answer_;
};

}  // namespace

guest_exchange make_guest_exchange(asio::io_context& context, std::shared_ptr<reply_gate> gate) {
  return [&context, gate = std::move(gate)](guest_socket to, std::string line, std::chrono::seconds patience,
                                            std::function<void(result<std::string>)> done) {
    const auto held = std::make_shared<guest_socket>(std::move(to));
    const auto name = held->ip + ":" + std::to_string(held->port);
    gate->post([&context, held, name, line = std::move(line), patience, done = std::move(done)]() mutable {
      std::make_shared<exchange>(context, name, std::move(line), patience, std::move(done))->start(*held);
    });
  };
}

}  // namespace coppice
