// One VM: its process, its API, its lifecycle. The only actor that talks to its VMM.
#pragma once

#include <caf/typed_event_based_actor.hpp>
#include <functional>
#include <optional>
#include <variant>

#include "actors/messages.hpp"
#include "actors/run_folder.hpp"
#include "actors/run_states.hpp"
#include "actors/services.hpp"
#include "actors/turn_queue.hpp"

namespace coppice {

struct restore_spec {
  pin_ptr snapshot;
};
struct boot_spec {
  create_snapshot_request request;
};
struct sandbox_spec {
  std::string id;
  std::variant<restore_spec, boot_spec> from;
  fleet_handle fleet;              // hears sandbox_stuck and sandbox_down
  bool network = false;            // in a network namespace of its own
  std::uint64_t memory_limit = 0;  // bytes that VMM and RAM may take, by services::cgroups; 0: no limit
};

// Spawned by the fleet (or a base_builder); ends when its VMM ended, or by stop_sandbox. Never leaves its VMM paused
// without a branch that holds the turn.
class sandbox_actor final : public sandbox_handle::base {
 public:
  sandbox_actor(caf::actor_config& config, services_ptr with, sandbox_spec spec);
  behavior_type make_behavior() override;
  void on_exit() override;
  const char* name() const override { return "sandbox"; }

 private:
  // What the pool made ready for the start.
  struct prepared {
    std::shared_ptr<running_vmm> vmm;
    std::shared_ptr<guest_memory> memory;
    std::shared_ptr<const network_namespace> network;
    std::shared_ptr<const memory_cgroup> group{};
  };

  // sandbox_start.cpp: one function a stage, in this order.
  caf::typed_response_promise<sandbox_started> start();
  static result<prepared> prepare(const services& with, const sandbox_spec& spec, bool live, sandbox_handle self,
                                  sandbox_actor* owner);
  void when_prepared(result<prepared> ready);
  void wait_for_api();
  void load_snapshot();
  void boot();
  void send_all(std::vector<api_request> requests);
  void listen_for_uffd();
  void ask_for_uffd();
  void when_handed_over(result<uffd_handover> handover);
  void when_attached(result<std::unique_ptr<protected_memory>> attached);
  void resume_first();
  void started();
  void start_failed(error failure);

  // sandbox_actor.cpp: commands.
  caf::result<turn_grant> take_turn(const struct take_turn& ask);
  void give_back(std::uint64_t branch, bool bitmap_too);
  caf::result<memory_session> begin_copy();
  caf::result<finished> probe(const probe_vm& ask);
  caf::result<finished> pause(const pause_vm& ask);
  caf::result<finished> snapshot(const snapshot_vm& ask);
  caf::result<finished> resume(const resume_vm& ask);
  caf::result<finished> stop();
  void when_resumed(std::uint64_t attempt, result<void> outcome);
  void send_resume(std::chrono::milliseconds deadline);
  void retry_resume();
  void running_again();
  void when_exited(const exit_status& status);
  void guest_ended(const std::string& how);

  caf::error illegal(std::string_view command) const;
  // Sends one API request; `then` runs in this actor.
  void call(api_request request, std::chrono::milliseconds deadline, std::function<void(result<api_reply>)> then);
  void after(std::chrono::milliseconds delay, std::function<void()> body);
  // Runs `work` in the pool that is `where`, `then` with its result in this actor.
  template <class Work, class Done>
  void offload(executor& where, Work work, Done then) {
    where.post([self = sandbox_handle(this), work = std::move(work), then = std::move(then)]() mutable {
      run_in(self, [then = std::move(then), answer = work()]() mutable { then(std::move(answer)); });
    });
  }

  const services_ptr with_;
  sandbox_spec spec_;
  const run_folder folder_;
  const bool live_;  // the RAM is shared and known to the copy engine

  run_state state_ = run_state::starting;
  std::shared_ptr<running_vmm> vmm_;
  std::shared_ptr<guest_memory> memory_;
  std::shared_ptr<const network_namespace> network_;
  std::weak_ptr<const memory_cgroup> group_;  // the VMM's
  std::shared_ptr<protected_memory> protected_;
  caf::typed_response_promise<sandbox_started> starting_;
  caf::actor_clock::time_point api_deadline_;
  std::vector<api_request> boot_requests_;

  turn_queue pause_turn_;
  turn_queue bitmap_turn_;
  std::optional<std::uint64_t> pause_turn_due_;  // given back while not resumed: released when it runs
  record_ptr diff_base_;                         // not pinned: a base that was deleted makes the next diff a full one
  std::string no_base_;

  struct held_pause {
    branch_mode mode;
    caf::actor_clock::time_point since;
  };
  std::optional<held_pause> held_;    // from a pause's sending until it runs again
  std::uint64_t resume_attempt_ = 0;  // failures of older attempts are stale
  std::uint64_t oldest_attempt_ = 0;  // older ones were sent before the latest pause: they say nothing about it
  caf::typed_response_promise<finished> resuming_;
  std::chrono::milliseconds backoff_{};
  bool stopping_ = false;
  std::vector<caf::typed_response_promise<finished>> stops_;
};

}  // namespace coppice
