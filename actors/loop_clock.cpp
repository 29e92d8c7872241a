#include "actors/loop_clock.hpp"

#include <caf/abstract_actor.hpp>
#include <caf/actor_cast.hpp>
#include <utility>

namespace coppice {

template <class Change>
void loop_clock::change(Change what) {
  auto apply = [this, stopped = stopped_, what = std::move(what)]() mutable {
    if (*stopped) return;  // and the clock may be gone
    what();
    arm();
  };
  if (loop_->on_loop_thread()) return apply();
  loop_->post([shared = std::make_shared<decltype(apply)>(std::move(apply))] { (*shared)(); });  // it can't be copied
}

template <class Change>
void loop_clock::change_for(caf::abstract_actor* self, Change what) {
  if (loop_->on_loop_thread()) return change([&] { what(self); });
  change([alive = caf::strong_actor_ptr(self->ctrl()), what = std::move(what)]() mutable {
    what(caf::actor_cast<caf::abstract_actor*>(alive));
  });
}

// One timer for the earliest of the schedule. It stays when that is cancelled: to wake up for nothing is cheaper.
void loop_clock::arm() {
  if (schedule_.empty()) return;
  const auto earliest = schedule_.begin()->first;
  if (timer_ != 0 && armed_for_ <= earliest) return;
  if (timer_ != 0) loop_->cancel_timer(timer_);
  armed_for_ = earliest;
  timer_ = loop_->add_timer(earliest, [this] {
    timer_ = 0;
    trigger_expired_timeouts();
    arm();
  });
}

void loop_clock::stop() {
  loop_->run_sync([this] {
    *stopped_ = true;
    schedule::cancel_all();
    if (timer_ != 0) loop_->cancel_timer(std::exchange(timer_, 0));
  });
}

void loop_clock::set_ordinary_timeout(time_point when, caf::abstract_actor* self, caf::atom_value type,
                                      std::uint64_t id) {
  change_for(self, [=, this](caf::abstract_actor* who) { schedule::set_ordinary_timeout(when, who, type, id); });
}

void loop_clock::set_multi_timeout(time_point when, caf::abstract_actor* self, caf::atom_value type, std::uint64_t id) {
  change_for(self, [=, this](caf::abstract_actor* who) { schedule::set_multi_timeout(when, who, type, id); });
}

void loop_clock::set_request_timeout(time_point when, caf::abstract_actor* self, caf::message_id id) {
  change_for(self, [=, this](caf::abstract_actor* who) { schedule::set_request_timeout(when, who, id); });
}

void loop_clock::cancel_ordinary_timeout(caf::abstract_actor* self, caf::atom_value type) {
  change([this, gone = ordinary_timeout_cancellation(self->id(), type)] { handle(gone); });
}

void loop_clock::cancel_request_timeout(caf::abstract_actor* self, caf::message_id id) {
  change([this, gone = request_timeout_cancellation(self->id(), id)] { handle(gone); });
}

void loop_clock::cancel_timeouts(caf::abstract_actor* self) {
  change([this, gone = timeouts_cancellation(self->id())] { handle(gone); });  // it may be in its destructor
}

void loop_clock::schedule_message(time_point when, caf::strong_actor_ptr receiver, caf::mailbox_element_ptr content) {
  change([=, this, receiver = std::move(receiver), content = std::move(content)]() mutable {
    schedule::schedule_message(when, std::move(receiver), std::move(content));
  });
}

void loop_clock::schedule_message(time_point when, caf::group target, caf::strong_actor_ptr sender,
                                  caf::message content) {
  change([=, this, target = std::move(target), sender = std::move(sender), content = std::move(content)]() mutable {
    schedule::schedule_message(when, std::move(target), std::move(sender), std::move(content));
  });
}

void loop_clock::cancel_all() {
  change([this] { schedule::cancel_all(); });
}

}  // namespace coppice
