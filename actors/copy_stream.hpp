// One branch's copy: turns the engine's completions into answers, and watches that the copy goes on.
#pragma once

#include <caf/typed_event_based_actor.hpp>

#include "actors/messages.hpp"
#include "actors/services.hpp"

namespace coppice {

// Owns the copy_session. Spawned linked by its branch_coordinator; when it ends, in whatever way, the session is
// aborted and the memory unprotected.
class copy_stream final : public copy_stream_handle::base {
 public:
  copy_stream(caf::actor_config& config, services_ptr with, session_ptr session)
      : copy_stream_handle::base(config), with_(std::move(with)), session_(std::move(session)) {}
  behavior_type make_behavior() override;
  void on_exit() override;
  const char* name() const override { return "copy_stream"; }

 private:
  using arm = void (copy_session::*)(copy_session::completion);
  caf::typed_response_promise<finished> protect(arm call);
  caf::typed_response_promise<copied_memory> copy(const copy_memory& ask);
  caf::typed_response_promise<finished> abort();
  void watch();
  void copy_ended(result<copy_result> outcome);

  const services_ptr with_;
  session_ptr session_;
  caf::typed_response_promise<copied_memory> copying_;
  std::uint64_t settled_pages_ = 0;
  caf::actor_clock::time_point progressed_at_;
};

}  // namespace coppice
