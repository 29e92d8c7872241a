#include "actors/loop_scheduler.hpp"

#include <caf/logger.hpp>
#include <caf/resumable.hpp>
#include <cassert>

namespace coppice {
namespace {
constexpr std::size_t messages_a_turn = 32;
}

loop_scheduler::loop_scheduler(caf::actor_system& system, std::shared_ptr<event_loop> loop)
    : abstract_coordinator(system), loop_(std::move(loop)), unit_(system, *this), clock_(loop_) {
  assert(loop_);
}

void loop_scheduler::enqueue(caf::resumable* job) {
  loop_->post([this, job] { run(job); });
}

void loop_scheduler::run(caf::resumable* job) {
  if (stopped_) return cleanup_and_release(job);
  switch (job->resume(&unit_, messages_a_turn)) {
    case caf::resumable::resume_later:
      return enqueue(job);
    case caf::resumable::awaiting_message:
    case caf::resumable::done:
    case caf::resumable::shutdown_execution_unit:
      return caf::intrusive_ptr_release(job);
  }
}

// Called by ~actor_system when all actors have ended but CAF's own.
void loop_scheduler::stop() {
  loop_->run_sync([this] { stopped_ = true; });
  stop_actors();
  loop_->run_sync([] {});  // what came since is cleaned up, which speaks to the clock
  clock_.stop();
  // Nothing refers to this any more. Spawning made the loop's thread hold the system's logger, and ~actor_system waits
  // until nobody does.
  loop_->run_sync([] { caf::logger::set_current_actor_system(nullptr); });
}

}  // namespace coppice
