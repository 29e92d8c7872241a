// The part of a connection that sends server-sent events, until either side ends it.
#include <boost/asio/write.hpp>

#include "api/event_log.hpp"
#include "api/http_connection.hpp"
#include "base/log.hpp"

namespace coppice {

namespace beast = boost::beast;
namespace http = boost::beast::http;

void http_connection::stream_events(const route_answer& answer) {
  keep_alive_ = false;
  events_seen_ = answer.events_after.value_or(core_.services.events->latest());
  const auto header = std::make_shared<http::response<http::empty_body>>(http::status::ok, 11);
  header->keep_alive(false);  // the stream ends with the connection
  header->set("X-Request-Id", request_id_);
  header->set(http::field::content_type, answer.content_type);
  header->set(http::field::cache_control, "no-store");
  stream_.expires_after(core_.options.limits.write_timeout);
  const auto begin = [self = shared_from_this(), header](beast::error_code failure, std::size_t) {
    self->answer_due_ = false;
    if (failure || self->core_.stopping) return self->close();
    self->streaming_ = true;
    self->end_if_revoked();  // meanwhile
    if (!self->streaming_) return;
    self->watch_for_the_client_leaving();
    self->send_text(": coppiced sends what changes from here on\n\n");
  };
  with_stream([&](auto& stream) { http::async_write(stream, *header, begin); });
}

void http_connection::watch_for_the_client_leaving() {
  stream_.expires_never();
  buffer_.clear();
  const auto on_read = [self = shared_from_this()](beast::error_code failure, std::size_t) {
    if (failure) return self->close();
    self->watch_for_the_client_leaving();
  };
  with_stream([&](auto& stream) { stream.async_read_some(buffer_.prepare(4 * kib), on_read); });
}

void http_connection::end_if_revoked() {
  if (!streaming_ || identify().role != access_role::none) return;
  spdlog::info("the event stream of {} ends: its token is none any more; request {}", from_.name, request_id_);
  close();
}

void http_connection::send_new_events() {
  if (!streaming_ || sending_) return;
  auto batch = core_.services.events->following(events_seen_);
  events_seen_ = batch.continue_at;
  if (!batch.text.empty()) send_text(std::move(batch.text));
}

void http_connection::send_text(std::string text) {
  sending_ = true;
  outgoing_ = std::move(text);
  heartbeat_.cancel();
  stream_.expires_after(core_.options.limits.write_timeout);
  const auto on_sent = [self = shared_from_this()](beast::error_code failure, std::size_t) {
    self->sending_ = false;
    if (failure) return self->close();
    self->await_heartbeat();
    self->send_new_events();
  };
  with_stream([&](auto& stream) { boost::asio::async_write(stream, boost::asio::buffer(outgoing_), on_sent); });
}

void http_connection::await_heartbeat() {
  heartbeat_.expires_after(core_.options.heartbeat);
  heartbeat_.async_wait([self = weak_from_this()](beast::error_code failure) {
    const auto connection = self.lock();
    if (!failure && connection && connection->streaming_ && !connection->sending_) {
      connection->send_text(": heartbeat\n\n");
    }
  });
}

}  // namespace coppice
