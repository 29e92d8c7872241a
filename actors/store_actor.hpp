// The store as an actor: every call runs in the worker pool.
#pragma once

#include <caf/typed_event_based_actor.hpp>

#include "actors/messages.hpp"
#include "actors/services.hpp"

namespace coppice {

class store_actor final : public store_handle::base {
 public:
  store_actor(caf::actor_config& config, services_ptr with) : store_handle::base(config), with_(std::move(with)) {}
  behavior_type make_behavior() override;
  const char* name() const override { return "store"; }

 private:
  // Runs `work` (result<T>()) in the pool that is `where`; the answer to the present request is its result.
  template <class T, class F>
  caf::typed_response_promise<T> offload(executor& where, F work);

  const services_ptr with_;
};

}  // namespace coppice
