// The registry and supervisor of a host: sandboxes, branches in flight, and who may begin what.
#pragma once

#include <caf/typed_event_based_actor.hpp>
#include <deque>
#include <map>
#include <optional>
#include <set>

#include "actors/error_bridge.hpp"
#include "actors/messages.hpp"
#include "actors/services.hpp"
#include "actors/snapshot_registry.hpp"
#include "journal_guest/journal_oracle.hpp"

namespace coppice {

// One per daemon. Answers the API's requests; all state is its own.
class fleet final : public fleet_handle::base {
 public:
  fleet(caf::actor_config& config, services_ptr with);
  behavior_type make_behavior() override;
  void on_exit() override;
  const char* name() const override { return "fleet"; }

 private:
  struct sandbox_entry {
    sandbox_info info;
    sandbox_handle vm;
    pin_ptr origin;                                // the snapshot it came from
    std::optional<journal_reading> journal_since;  // at the last reset
    bool stuck = false;
    bool deleting = false;
    std::set<std::uint64_t> branches;  // in flight
  };
  // The work on a snapshot in the making: a branch, or a base.
  struct making {
    std::string tag;
    std::string sandbox;  // empty for a base
    branch_mode mode = branch_mode::full;
    reply<snapshot_info> answer;
    bool wait = true;
    std::string request_id = {};
    coordinator_handle worker = {};
    bool answered = false;
    std::vector<reply<void>> deletions = {};  // that cancel it, and wait for its end
  };
  // One create_sandboxes: all or none.
  struct creation {
    reply<std::vector<sandbox_info>> answer;
    std::vector<std::string> ids;
    std::size_t left = 0;
    std::optional<error> failure;
    std::string request_id = {};
    caf::actor_clock::time_point asked_at = {};
  };
  struct pending_start {
    std::string id;
    std::shared_ptr<creation> part_of;
  };

  // fleet.cpp: sandboxes.
  void create_sandboxes(const ask::create_sandboxes& ask);
  result<void> room_for(unsigned n) const;
  void spawn_sandboxes(const ask::create_sandboxes& ask, const pin_ptr& pin);
  void start_next();
  void start_ended(const pending_start& which, result<sandbox_started> outcome);
  void finish_creation(const creation& all);
  void delete_sandbox(const ask::delete_sandbox& ask);
  void forget(const std::string& id, event_kind why = event_kind::sandbox_deleted, const std::string& reason = {});
  void when_down(const sandbox_down& down);
  void list_sandboxes(const ask::sandboxes& ask);
  sandbox_info describe(const sandbox_entry& entry) const;
  void journal(const ask::journal& ask);
  void open_guest_socket(const ask::guest_socket& ask);
  void count_sandboxes();
  void stop(const ask::stop& ask);
  void stop_goes_on();
  void stop_sandboxes();

  // fleet_branches.cpp
  void branch(const ask::branch& ask);
  result<std::string> admit(const ask::branch& ask);
  void begin(std::uint64_t id);
  void when_resumed(const branch_resumed& event);
  void when_ended(const branch_ended& event);
  void made(const making& entry, const branch_ended& event);
  void not_made(const making& entry, const branch_ended& event);
  void count_end(const making& branch, const result<record_ptr>& outcome);
  void coordinator_died(const caf::down_msg& down);
  void abort_branches_of(const sandbox_entry& entry, const error& reason);

  // fleet_snapshots.cpp
  void create_snapshot(const ask::create_snapshot& ask);
  void delete_snapshot(const ask::delete_snapshot& ask);
  bool cancel(const std::string& tag, const reply<void>& answer);
  void delete_in_order(std::vector<std::string> tags, const reply<void>& answer);
  void forget_snapshot(const std::string& tag);
  void removal_failed(const std::string& tag);
  result<void> check_unused(const std::string& tag) const;
  void verify(const ask::verify& ask);

  const services_ptr with_;
  daemon_limits limits_;
  store_handle store_;
  std::map<std::string, sandbox_entry> sandboxes_;
  snapshot_registry snapshots_;
  std::map<std::uint64_t, making> making_;
  std::uint64_t next_id_ = 1;
  std::deque<pending_start> starts_;
  unsigned starting_ = 0;
  bool stopping_ = false;
  std::vector<reply<void>> stops_;
};

}  // namespace coppice
