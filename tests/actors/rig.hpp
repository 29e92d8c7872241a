// A whole fleet over fakes, under CAF's testing scheduler: nothing happens unless the test lets it, and time is
// virtual.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/atom.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <optional>

#include "actors/fleet.hpp"
#include "tests/actors/fakes.hpp"

namespace coppice::fakes {

struct testing_settings : caf::actor_system_config {
  testing_settings() { set("scheduler.policy", caf::atom("testing")); }
};

class rig {
 public:
  // `others`: base snapshots that are there from the start besides "base", as tag and VMM that made them.
  explicit rig(bool live = true, daemon_limits limits = {}, const std::map<std::string, std::string>& others = {}) {
    for (const auto& [tag, vmm] : others) store.add_base(tag, {}, vmm);
    host.can.vmstate_only = live;
    with = std::make_shared<const services>(
        services{host, engine, store, meters, pool, run.path(), branch_deadlines{}, limits});
    actors = system.spawn<fleet>(with);
    settle();
  }
  ~rig() {
    caf::anon_send_exit(actors, caf::exit_reason::user_shutdown);
    actors = nullptr;
    settle();
    settle();
  }

  caf::scheduler::test_coordinator& scheduler() {
    return dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
  }
  // Runs actors and pool tasks until nothing is left to do now.
  void settle() {
    for (;;) {
      bool busy = false;
      while (scheduler().try_run_once()) busy = true;
      while (pool->run_one()) busy = true;
      if (!busy) return;
    }
  }
  // Lets virtual time pass in steps, as the actors would see it.
  void pass(std::chrono::milliseconds time, std::chrono::milliseconds step = std::chrono::milliseconds(5)) {
    settle();
    for (auto left = time; left.count() > 0; left -= step) {
      scheduler().advance_time(step);
      settle();
    }
  }

  // Sends a request with a place for its answer.
  template <class T, class Ask, class... Args>
  std::shared_ptr<std::optional<result<T>>> send(Args... args) {
    auto answer = std::make_shared<std::optional<result<T>>>();
    caf::anon_send(actors,
                   Ask{std::move(args)..., reply<T>([answer](result<T> came) { answer->emplace(std::move(came)); })});
    settle();
    return answer;
  }
  auto create(unsigned n = 1, const std::string& tag = "base") {
    return send<std::vector<sandbox_info>, ask::create_sandboxes>(create_sandboxes_request{tag, n});
  }
  std::string parent() {
    auto made = create();
    EXPECT_TRUE(*made && (*made)->ok()) << (*made ? (*made)->error().message() : "no answer");
    return (**made)->front().id;
  }
  auto branch(const std::string& id, const std::string& tag, branch_mode mode = branch_mode::live, bool wait = true) {
    return send<snapshot_info, ask::branch>(id, branch_request{tag, mode, wait});
  }
  std::vector<sandbox_info> sandboxes() { return (**send<std::vector<sandbox_info>, ask::sandboxes>()).value(); }
  std::vector<snapshot_info> snapshots() { return (**send<std::vector<snapshot_info>, ask::snapshots>()).value(); }
  result<snapshot_info> info(const std::string& tag) {
    const auto answer = send<snapshot_info, ask::snapshot>(tag);
    return answer->has_value() ? **answer : error{errc::internal, 0, "no answer"};
  }
  bool listed(const std::string& tag) {
    const auto all = snapshots();
    return std::any_of(all.begin(), all.end(), [&](const auto& info) { return info.tag == tag; });
  }

  world_ptr what = std::make_shared<world>();
  temp_dir run;
  fake_host host{what};
  fake_engine engine{what};
  fake_store store{what};
  metrics meters;
  std::shared_ptr<manual_executor> pool = std::make_shared<manual_executor>();
  services_ptr with;
  testing_settings settings;
  caf::actor_system system{settings};
  fleet_handle actors;
};

}  // namespace coppice::fakes
