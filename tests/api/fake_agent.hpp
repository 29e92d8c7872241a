// In the place of the agent in a guest.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

namespace coppice {

// An agent that listens on 127.0.0.1, for one exchange.
class fake_agent {
 public:
  explicit fake_agent(std::string says) : says_(std::move(says)), thread_([this] { serve(); }) {}
  ~fake_agent() { thread_.join(); }
  fake_agent(const fake_agent&) = delete;
  fake_agent& operator=(const fake_agent&) = delete;

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  nlohmann::json heard() {
    thread_.join();
    thread_ = std::thread([] {});
    return nlohmann::json::parse(heard_, nullptr, false);
  }

 private:
  using tcp = boost::asio::ip::tcp;
  void serve() {
    auto connection = acceptor_.accept();
    boost::system::error_code end;
    boost::asio::read(connection, boost::asio::dynamic_buffer(heard_), end);  // to the end of the stream
    boost::asio::write(connection, boost::asio::buffer(says_), end);
  }

  const std::string says_;
  boost::asio::io_context context_;
  tcp::acceptor acceptor_{context_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)};
  std::string heard_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace coppice
