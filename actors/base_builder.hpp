// Makes a base snapshot: boots a VM, lets it run, takes a full snapshot of it, and ends it.
#pragma once

#include <caf/typed_event_based_actor.hpp>
#include <type_traits>

#include "actors/error_bridge.hpp"
#include "actors/messages.hpp"
#include "actors/services.hpp"

namespace coppice {

struct base_job {
  std::uint64_t id = 0;
  create_snapshot_request request;
  store_handle store;
  fleet_handle fleet;  // hears branch_ended exactly once
};

// Spawned by the fleet; ends with its job. On any failure the VM is ended and the staging removed before it reports.
class base_builder final : public coordinator_handle::base {
 public:
  base_builder(caf::actor_config& config, services_ptr with, base_job job)
      : coordinator_handle::base(config), with_(std::move(with)), job_(std::move(job)) {}
  behavior_type make_behavior() override;
  void on_exit() override;
  const char* name() const override { return "base_builder"; }

 private:
  // One function a stage, in this order.
  void check();
  void reserve();
  void boot(const reservation& answer);
  void let_run(const sandbox_started& answer);
  void pause();
  void snapshot(const finished& answer);
  void end_vm(const finished& answer);
  void publish(const finished& answer);
  void published(const published_snapshot& answer);

  void vm_unavailable(error why);
  void fail(error why);
  void drop();
  void report(result<record_ptr> outcome);

  template <class Answer, class Handle, class Message>
  void perform(const Handle& to, std::chrono::milliseconds within, Message message, const char* what,
               void (base_builder::*then)(const Answer&)) {
    request(to, within, std::move(message))
        .then(
            [this, then](const Answer& answer) {
              if (!failed_) (this->*then)(answer);
            },
            [this, what](const caf::error& failure) {
              auto why = from_caf(failure);
              why.context = std::string(what) + ": " + why.context;
              if (std::is_same_v<Handle, sandbox_handle> && why.code == errc::unavailable)
                vm_unavailable(std::move(why));
              else
                fail(std::move(why));
            });
  }

  const services_ptr with_;
  const base_job job_;
  staging_ptr staged_;
  sandbox_handle vm_;
  bool failed_ = false;
  error reason_;
};

}  // namespace coppice
