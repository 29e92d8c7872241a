#include "vmm/http_api_channel.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/fd.hpp"
#include "vmm/unix_socket.hpp"

namespace coppice {
namespace {

namespace http = boost::beast::http;
using reply_parser = http::response_parser<http::string_body>;

constexpr std::uint64_t max_reply_bytes = 1 << 20;  // the API's largest answers are a few KiB

// The fault_message of an error reply, or the body as it is.
std::string fault_of(const std::string& body) {
  const auto parsed = nlohmann::json::parse(body, nullptr, false);
  if (parsed.is_object()) {
    for (const auto* key : {"fault_message", "error"}) {  // the second is its HTTP layer's (micro_http)
      const auto fault = parsed.find(key);
      if (fault != parsed.end() && fault->is_string()) return fault->get<std::string>();
    }
  }
  return body.empty() ? "refused without a reason" : body;
}

std::string name_of(const api_request& request) {
  return request.method + " " + request.path;
}

std::string to_text(const api_request& request) {
  return request.method + " " + request.path +
         " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
         "Content-Length: " +
         std::to_string(request.body.size()) + "\r\n\r\n" + request.body;
}

result<api_reply> to_result(const api_request& request, int status, std::string body) {
  if (status >= 200 && status < 300) return api_reply{status, std::move(body)};
  const auto what = status == 400 ? ": " : ": status " + std::to_string(status) + ": ";
  // 503 is micro_http's "too many open connections".
  return error{status == 503 ? errc::unavailable : errc::conflict, 0, name_of(request) + what + fault_of(body)};
}

}  // namespace

// All members are used on the loop's thread only (the constructor excepted, which runs before anyone else knows it).
// Whoever calls holds a reference: a completion may destroy the channel.
class http_api_channel::connection : public std::enable_shared_from_this<connection> {
 public:
  connection(std::shared_ptr<event_loop> loop, std::filesystem::path socket)
      : loop_(std::move(loop)), path_(std::move(socket)) {}

  void add(api_request request, event_loop::clock::time_point deadline, completion done);
  void close();

 private:
  struct pending {
    std::uint64_t id = 0;
    api_request request;
    completion done;
    event_loop::timer_id timer = 0;
  };

  void serve();  // begins the first call of the queue, unless one is under way
  void begin();
  result<void> connect();
  void disconnect();
  result<void> watch(std::uint32_t events);
  void ready(std::uint32_t events);
  result<void> send();  // as much of the request as the socket takes
  void receive();
  void parse(boost::beast::error_code& failure);  // of what was received, as much as is whole
  void closed_by_vmm(const std::string& how);
  void fail(const std::string& why);
  void finish(result<api_reply> answer);  // of the first call
  void expire(std::uint64_t id);
  error given_up(const api_request& request) const {
    return {errc::cancelled, 0, name_of(request) + " at " + path_.string() + ": given up"};
  }

  const std::shared_ptr<event_loop> loop_;
  const std::filesystem::path path_;

  unique_fd socket_;
  bool kept_ = false;  // it has answered a call: should it break at the next, the VMM may have closed it as idle

  std::deque<pending> queue_;  // the first one is being served while running_
  bool running_ = false;
  bool closed_ = false;
  std::uint64_t next_id_ = 1;
  std::string unsent_;    // of the request
  std::string received_;  // of the reply, not parsed yet
  std::optional<reply_parser> parser_;
};

void http_api_channel::connection::add(api_request request, event_loop::clock::time_point deadline, completion done) {
  if (closed_) return done(given_up(request));  // posted before the loop's own thread destroyed the channel
  const auto id = next_id_++;
  const auto timer = loop_->add_timer(deadline, [weak = weak_from_this(), id] {
    if (const auto alive = weak.lock()) alive->expire(id);
  });
  queue_.push_back({id, std::move(request), std::move(done), timer});
  serve();
}

void http_api_channel::connection::serve() {
  while (!closed_ && !running_ && !queue_.empty()) {
    running_ = true;
    begin();
  }
}

void http_api_channel::connection::begin() {
  if (!socket_) {
    if (const auto connected = connect(); !connected) return fail(connected.error().message());
  }
  unsent_ = to_text(queue_.front().request);
  received_.clear();
  parser_.emplace();
  parser_->body_limit(max_reply_bytes);
  if (const auto sent = send(); !sent) closed_by_vmm(sent.error().message());
}

// A unix socket connects at once, or says why not.
result<void> http_api_channel::connection::connect() {
  auto connected = connect_unix(path_);
  if (!connected) return std::move(connected).error();
  socket_ = *std::move(connected);
  kept_ = false;
  return watch(EPOLLIN);
}

void http_api_channel::connection::disconnect() {
  if (socket_) loop_->unwatch(socket_.get());
  socket_.reset();
}

result<void> http_api_channel::connection::watch(std::uint32_t events) {
  return loop_->watch(socket_.get(), events, [weak = weak_from_this()](std::uint32_t ready) {
    const auto alive = weak.lock();
    if (!alive || alive->closed_) return;
    alive->ready(ready);
    alive->serve();
  });
}

void http_api_channel::connection::ready(std::uint32_t events) {
  if (!running_) return disconnect();  // closed as idle; or it speaks out of turn
  if ((events & EPOLLOUT) != 0) {
    if (const auto sent = send(); !sent) return closed_by_vmm(sent.error().message());
    if (unsent_.empty()) {
      if (const auto watched = watch(EPOLLIN); !watched) return fail(watched.error().message());
    }
  }
  if ((events & ~std::uint32_t{EPOLLOUT}) != 0) receive();
}

result<void> http_api_channel::connection::send() {
  while (!unsent_.empty()) {
    const auto sent = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return watch(EPOLLIN | EPOLLOUT);
    if (sent < 0) return errno_error("send");
    unsent_.erase(0, static_cast<std::size_t>(sent));
  }
  return {};
}

void http_api_channel::connection::receive() {
  std::array<char, 16 * 1024> part;
  const auto length = ::recv(socket_.get(), part.data(), part.size(), 0);
  if (length < 0 && errno == EAGAIN) return;
  if (length < 0) return closed_by_vmm(errno_error("receive").message());
  boost::beast::error_code failure;
  if (length == 0) {
    if (!parser_->got_some()) return closed_by_vmm("closed without an answer");
    parser_->put_eof(failure);
  } else {
    received_.append(part.data(), static_cast<std::size_t>(length));
    parse(failure);
    if (failure == http::error::need_more) return;
  }
  if (failure) return fail("the answer: " + failure.message());
  if (!parser_->is_done()) return;
  kept_ = true;
  if (!parser_->keep_alive()) disconnect();
  auto reply = parser_->release();
  finish(to_result(queue_.front().request, static_cast<int>(reply.result_int()), std::move(reply.body())));
}

// Part by part: an `eager` parser of Boost 1.74 goes on where the header says that the body is over its limit.
void http_api_channel::connection::parse(boost::beast::error_code& failure) {
  while (!failure && !parser_->is_done() && !received_.empty())
    received_.erase(0, parser_->put(boost::asio::buffer(received_), failure));
}

// A kept connection that breaks before it answered a byte was closed as idle: the request is sent once more.
void http_api_channel::connection::closed_by_vmm(const std::string& how) {
  disconnect();
  const bool again = std::exchange(kept_, false) && received_.empty() && !parser_->got_some();
  if (!again) return fail(how);
  begin();
}

void http_api_channel::connection::fail(const std::string& why) {
  disconnect();
  finish(error{errc::unavailable, 0, name_of(queue_.front().request) + " at " + path_.string() + ": " + why});
}

void http_api_channel::connection::finish(result<api_reply> answer) {
  auto call = std::move(queue_.front());
  queue_.pop_front();
  running_ = false;
  loop_->cancel_timer(call.timer);
  call.done(std::move(answer));
}

void http_api_channel::connection::expire(std::uint64_t id) {
  const auto call = std::ranges::find(queue_, id, &pending::id);
  if (call == queue_.end()) return;
  const bool was_running = running_ && call == queue_.begin();
  if (was_running) {
    disconnect();  // its answer may come yet: it must not be taken for the next one's
    running_ = false;
  }
  auto expired = std::move(*call);
  queue_.erase(call);
  expired.done(error{errc::deadline_exceeded, 0,
                     name_of(expired.request) + " at " + path_.string() +
                         (was_running ? ": no answer in time" : ": still waiting behind earlier calls")});
  serve();
}

void http_api_channel::connection::close() {
  closed_ = true;
  disconnect();
  auto calls = std::exchange(queue_, {});
  for (auto& call : calls) {
    loop_->cancel_timer(call.timer);
    call.done(given_up(call.request));
  }
}

http_api_channel::http_api_channel(std::shared_ptr<event_loop> loop, std::filesystem::path socket)
    : loop_(loop), connection_(std::make_shared<connection>(std::move(loop), std::move(socket))) {}

http_api_channel::~http_api_channel() {
  loop_->run_sync([this] { connection_->close(); });
}

void http_api_channel::call(api_request request, std::chrono::milliseconds deadline, completion done) {
  loop_->post([connection = connection_, request = std::move(request), when = event_loop::clock::now() + deadline,
               done = std::move(done)]() mutable { connection->add(std::move(request), when, std::move(done)); });
}

}  // namespace coppice
