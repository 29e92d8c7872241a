// CAF's scheduler for one thread: the event loop's.
#pragma once

#include <caf/actor_system_config.hpp>
#include <caf/execution_unit.hpp>
#include <caf/scheduler/abstract_coordinator.hpp>
#include <memory>

#include "actors/loop_clock.hpp"
#include "vmm/event_loop.hpp"

namespace coppice {

// Runs all actors on `loop`'s thread, where the VMMs' answers arrive: between an answer and the next request there is
// no thread to be woken. Actors must not block, as callbacks of the loop must not. Between two turns of the same actor
// the loop looks at its sockets and timers. The actor system is destroyed by another thread.
class loop_scheduler final : public caf::scheduler::abstract_coordinator {
 public:
  loop_scheduler(caf::actor_system& system, std::shared_ptr<event_loop> loop);

  void enqueue(caf::resumable* job) override;  // thread-safe; takes the reference that comes with it
  caf::actor_clock& clock() noexcept override { return clock_; }
  void stop() override;

 private:
  class unit final : public caf::execution_unit {
   public:
    unit(caf::actor_system& system, loop_scheduler& owner) : execution_unit(&system), owner_(owner) {}
    void exec_later(caf::resumable* job) override { owner_.enqueue(job); }

   private:
    loop_scheduler& owner_;
  };

  void run(caf::resumable* job);

  const std::shared_ptr<event_loop> loop_;
  unit unit_;
  bool stopped_ = false;  // the loop's thread only
  loop_clock clock_;
};

// Of an actor system whose actors `loop` runs.
struct loop_settings : caf::actor_system_config {
  explicit loop_settings(const std::shared_ptr<event_loop>& loop) {
    module_factories.emplace_back([loop](caf::actor_system& system) { return new loop_scheduler(system, loop); });
  }
};

}  // namespace coppice
