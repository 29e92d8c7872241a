// CAF's clock on the event loop's timers: deadlines of requests and delayed messages.
#pragma once

#include <caf/detail/simple_actor_clock.hpp>
#include <memory>

#include "vmm/event_loop.hpp"

namespace coppice {

// What an actor asks of it costs neither a lock nor another thread that is woken: the loop's thread keeps the schedule.
// Thread-safe. stop() before it is destroyed; what is asked for afterwards is forgotten.
class loop_clock final : public caf::detail::simple_actor_clock {
 public:
  explicit loop_clock(std::shared_ptr<event_loop> loop) : loop_(std::move(loop)) {}

  void set_ordinary_timeout(time_point when, caf::abstract_actor* self, caf::atom_value type,
                            std::uint64_t id) override;
  void set_multi_timeout(time_point when, caf::abstract_actor* self, caf::atom_value type, std::uint64_t id) override;
  void set_request_timeout(time_point when, caf::abstract_actor* self, caf::message_id id) override;
  void cancel_ordinary_timeout(caf::abstract_actor* self, caf::atom_value type) override;
  void cancel_request_timeout(caf::abstract_actor* self, caf::message_id id) override;
  void cancel_timeouts(caf::abstract_actor* self) override;
  void schedule_message(time_point when, caf::strong_actor_ptr receiver, caf::mailbox_element_ptr content) override;
  void schedule_message(time_point when, caf::group target, caf::strong_actor_ptr sender,
                        caf::message content) override;
  void cancel_all() override;

  void stop();

 private:
  using schedule = caf::detail::simple_actor_clock;

  // Changes the schedule: at once on the loop's thread, else soon.
  template <class Change>
  void change(Change what);
  // The same for a timeout that `self` will hear of.
  template <class Change>
  void change_for(caf::abstract_actor* self, Change what);
  void arm();

  const std::shared_ptr<event_loop> loop_;
  // The loop's thread only, like the schedule.
  const std::shared_ptr<bool> stopped_ = std::make_shared<bool>(false);  // what is posted may run after our end
  event_loop::timer_id timer_ = 0;                                       // 0: none
  time_point armed_for_;  // of timer_; may be earlier than what is still scheduled
};

}  // namespace coppice
