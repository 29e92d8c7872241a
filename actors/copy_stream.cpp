#include "actors/copy_stream.hpp"

#include "actors/error_bridge.hpp"

namespace coppice {
namespace {
constexpr auto watch_interval = std::chrono::seconds(1);
}

copy_stream::behavior_type copy_stream::make_behavior() {
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const prearm_memory&) { return protect(&copy_session::prearm); },
      [this](const rearm_memory&) { return protect(&copy_session::rearm); },
      [this](const copy_memory& ask) { return copy(ask); },
      [this](const abort_copy&) { return abort(); },
  };
}

void copy_stream::on_exit() {
  session_.reset();  // its destructor aborts, in the worker pool
  copying_ = {};
}

caf::typed_response_promise<finished> copy_stream::protect(arm call) {
  auto promise = make_response_promise<finished>();
  ((*session_).*call)([self = copy_stream_handle(this), promise](result<void> outcome) {
    run_in(self, [promise, outcome = std::move(outcome)]() mutable {
      if (outcome)
        promise.deliver(finished{});
      else
        promise.deliver(to_caf(outcome.error()));
    });
  });
  return promise;
}

caf::typed_response_promise<copied_memory> copy_stream::copy(const copy_memory& ask) {
  copying_ = make_response_promise<copied_memory>();
  auto answer = copying_;
  session_->copy(std::move(ask.staged->image), [self = copy_stream_handle(this), this](result<copy_result> outcome) {
    run_in(self, [this, outcome = std::move(outcome)]() mutable { copy_ended(std::move(outcome)); });
  });
  progressed_at_ = clock().now();
  watch();
  return answer;
}

void copy_stream::copy_ended(result<copy_result> outcome) {
  if (!copying_.pending()) return;  // the watchdog was first
  if (outcome)
    copying_.deliver(copied_memory{std::move(*outcome)});
  else
    copying_.deliver(to_caf(outcome.error()));
}

// Every second while the copy runs: fails it if nothing was settled for the copy step's deadline, and that not for a
// limit. (Captures are written at once and count: the stream may have to wait for minutes then.)
void copy_stream::watch() {
  if (!copying_.pending() || !session_) return;
  const auto now = clock().now();
  if (const auto progress = session_->progress();
      progress.settled_pages != settled_pages_ || progress.waits_for_limit) {
    settled_pages_ = progress.settled_pages;
    progressed_at_ = now;
  }
  const auto deadline = with_->deadlines.of(branch_step::copy);
  if (now - progressed_at_ >= deadline) {
    copying_.deliver(
        to_caf({errc::deadline_exceeded, 0, "no progress for " + std::to_string(deadline.count()) + " ms"}));
    return;
  }
  struct tick final : continuation::work {
    explicit tick(copy_stream* owner) : owner_(owner) {}
    void run() override { owner_->watch(); }
    copy_stream* owner_;  // alive: it runs in the owner
  };
  delayed_send(copy_stream_handle(this), std::min<std::chrono::milliseconds>(watch_interval, deadline),
               continuation{std::make_shared<tick>(this)});
}

caf::typed_response_promise<finished> copy_stream::abort() {
  auto promise = make_response_promise<finished>();
  session_->abort([self = copy_stream_handle(this), promise] {
    run_in(self, [promise]() mutable { promise.deliver(finished{}); });
  });
  return promise;
}

}  // namespace coppice
