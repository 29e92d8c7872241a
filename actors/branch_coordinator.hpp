// One branch: steps.hpp's table as a state machine, one function a step.
#pragma once

#include <array>
#include <caf/typed_event_based_actor.hpp>
#include <optional>

#include "actors/error_bridge.hpp"
#include "actors/messages.hpp"
#include "actors/services.hpp"

namespace coppice {

struct branch_job {
  std::uint64_t id = 0;
  std::string sandbox;
  branch_mode mode = branch_mode::live;
  snapshot_record record;  // what is known at the admission: tag, parent, sizes, drives
  sandbox_handle vm;
  store_handle store;
  fleet_handle fleet;  // hears branch_resumed, and branch_ended exactly once
  std::string request_id = {};
};

// Spawned by the fleet; ends with its branch. Every step may fail, miss its deadline, or be cut off by abort_branch or
// the VM's end: then undo() takes everything back. Answers that come after their step are recognised by the generation.
class branch_coordinator final : public coordinator_handle::base {
 public:
  branch_coordinator(caf::actor_config& config, services_ptr with, branch_job job);
  behavior_type make_behavior() override;
  void on_exit() override;
  const char* name() const override { return "branch_coordinator"; }

 private:
  using time_point = caf::actor_clock::time_point;

  // The machine.
  void enter(branch_step step);
  std::chrono::microseconds note_step();  // in the timeline; returns what the present step took
  void step_done();
  void step_failed(const error& why);

  // The steps, each with what happens at its answers.
  void reserve();
  void have_staging(const reservation& answer);
  void have_turn(const turn_grant& answer);
  void have_diff_base(const pinned_snapshot& answer);
  void no_diff_base(const std::string& why);
  void have_session(const memory_session& answer);
  void prearm();
  void prearmed(const finished&);
  void pause();
  void snapshot();
  void rearm();
  void resume();
  void resumed();
  void copy();
  void copied(const copied_memory& answer);
  void publish();
  void published(const published_snapshot& answer);

  // Undo, in this order; each part may find nothing to do.
  void abort(const abort_branch& ask);
  void undo(error why);
  void undo_pause_and_copy();
  void undo_staging();
  void report(result<record_ptr> outcome);
  void log_end(const result<record_ptr>& outcome) const;

  bool live() const noexcept { return job_.mode == branch_mode::live; }
  std::chrono::milliseconds deadline() const;
  std::chrono::microseconds since(time_point start) {
    return std::chrono::duration_cast<std::chrono::microseconds>(clock().now() - start);
  }
  void done_answer(const finished&) { step_done(); }

  // Asks `to`; the answer goes to `then` if the step is still the same.
  template <class Answer, class Handle, class Message>
  void perform(const Handle& to, std::chrono::milliseconds within, Message message,
               void (branch_coordinator::*then)(const Answer&)) {
    const auto generation = generation_;
    request(to, within, std::move(message))
        .then(
            [this, generation, then](const Answer& answer) {
              if (generation == generation_) (this->*then)(answer);
            },
            [this, generation](const caf::error& failure) {
              if (generation == generation_) step_failed(from_caf(failure));
            });
  }
  // The same for undo: any answer goes on.
  template <class Handle, class Message>
  void attempt(const Handle& to, std::chrono::milliseconds within, Message message, void (branch_coordinator::*then)());

  const services_ptr with_;
  branch_job job_;
  bool merge_ = false;  // a diff that has a base
  std::string note_;

  branch_step step_ = branch_step::reserve;
  std::uint64_t generation_ = 0;  // grows with each step
  time_point begun_;
  time_point step_started_;
  std::vector<step_time> timeline_;
  time_point pause_started_;
  time_point budget_end_;
  time_point copy_started_;

  staging_ptr staged_;
  pin_ptr diff_base_;  // pinned while the image is composed of it
  copy_stream_handle stream_;
  std::weak_ptr<copy_session> session_;
  pause_breakdown breakdown_;
  std::optional<copy_summary> copy_;
  std::chrono::microseconds prearmed_{};

  bool resume_due_ = false;  // a pause may have been sent
  bool undoing_ = false;
  bool reported_ = false;
  unsigned undo_parts_ = 0;
  error reason_;
};

}  // namespace coppice
