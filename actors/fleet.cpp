#include "actors/fleet.hpp"

#include <sys/random.h>

#include <ctime>
#include <optional>

#include "actors/sandbox_actor.hpp"
#include "actors/store_actor.hpp"
#include "actors/verify.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

constexpr auto start_deadline = std::chrono::seconds(60);
constexpr auto stop_deadline = std::chrono::seconds(5);
constexpr auto store_deadline = std::chrono::seconds(10);
constexpr auto undo_patience = std::chrono::milliseconds(1500);
constexpr auto stop_patience = std::chrono::milliseconds(3000);

std::string new_sandbox_id() {
  std::uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != sizeof bits) bits = static_cast<std::uint64_t>(std::time(nullptr));
  return fmt::format("sb-{:012x}", bits & 0xffff'ffff'ffffU);
}

error no_sandbox(const std::string& id) {
  return {errc::not_found, 0, "no sandbox '" + id + "'"};
}
error is_stopping() {
  return {errc::unavailable, 0, "the daemon is stopping"};
}

}  // namespace

fleet::fleet(caf::actor_config& config, services_ptr with)
    : fleet_handle::base(config),
      with_(std::move(with)),
      limits_(with_->limits),
      snapshots_(with_->vmm.capabilities()) {
  for (const auto& record : with_->store.list()) snapshots_.ready(record);  // read when the store was opened
}

fleet::behavior_type fleet::make_behavior() {
  store_ = home_system().spawn<store_actor>(with_);
  count_sandboxes();
  set_down_handler([this](const caf::down_msg& down) { coordinator_died(down); });
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const ask::snapshots& ask) { ask.answer(snapshots_.all()); },
      [this](const ask::snapshot& ask) { ask.answer(snapshots_.find_with_lineage(ask.tag)); },
      [this](const ask::create_snapshot& ask) { create_snapshot(ask); },
      [this](const ask::delete_snapshot& ask) { delete_snapshot(ask); },
      [this](const ask::verify& ask) { verify(ask); },
      [this](const ask::sandboxes& ask) { list_sandboxes(ask); },
      [this](const ask::sandbox& ask) {
        const auto found = sandboxes_.find(ask.id);
        if (found == sandboxes_.end()) return ask.answer(no_sandbox(ask.id));
        ask.answer(describe(found->second));
      },
      [this](const ask::create_sandboxes& ask) { create_sandboxes(ask); },
      [this](const ask::delete_sandbox& ask) { delete_sandbox(ask); },
      [this](const ask::branch& ask) { branch(ask); },
      [this](const ask::journal& ask) { journal(ask); },
      [this](const ask::guest_socket& ask) { open_guest_socket(ask); },
      [this](const ask::stop& ask) { stop(ask); },
      [this](const set_limits& news) {
        limits_ = news.limits;
        start_next();
      },
      [this](const sandbox_stuck& event) {
        const auto found = sandboxes_.find(event.id);
        if (found == sandboxes_.end()) return;
        found->second.stuck = event.stuck;
        with_->meters.sandbox_stuck(event.id, event.stuck);
        with_->events->emit({event.stuck ? event_kind::sandbox_stuck : event_kind::sandbox_running, event.id, {}, {}});
        count_sandboxes();
      },
      [this](const sandbox_down& event) { when_down(event); },
      [this](const branch_resumed& event) { when_resumed(event); },
      [this](const branch_ended& event) { when_ended(event); },
  };
}

void fleet::on_exit() {
  for (auto& [id, entry] : sandboxes_) caf::anon_send_exit(entry.vm, caf::exit_reason::user_shutdown);
  for (auto& [id, entry] : making_) caf::anon_send_exit(entry.worker, caf::exit_reason::user_shutdown);
  caf::anon_send_exit(store_, caf::exit_reason::user_shutdown);
  sandboxes_.clear();
  making_.clear();
  starts_.clear();
  stops_.clear();
  store_ = nullptr;
}

void fleet::create_sandboxes(const ask::create_sandboxes& ask) {
  if (stopping_) return ask.answer(is_stopping());
  const auto n = ask.request.n;
  if (n == 0 || n > limits_.sandboxes)
    return ask.answer(
        error{errc::invalid_argument, 0, "n is " + std::to_string(n) + ": 1 to " + std::to_string(limits_.sandboxes)});
  if (auto room = room_for(n); !room) return ask.answer(std::move(room).error());
  if (auto bootable = snapshots_.check_bootable(ask.request.snapshot_tag); !bootable)
    return ask.answer(std::move(bootable).error());
  request(store_, store_deadline, pin_snapshot{ask.request.snapshot_tag, nullptr})
      .then([this, ask](const pinned_snapshot& answer) { spawn_sandboxes(ask, answer.pin); },
            [ask](const caf::error& failure) { ask.answer(from_caf(failure)); });
}

result<void> fleet::room_for(unsigned n) const {
  if (sandboxes_.size() + n <= limits_.sandboxes) return {};
  return error{errc::unavailable, 0,
               "the limit of " + std::to_string(limits_.sandboxes) +
                   " sandboxes is reached: " + std::to_string(sandboxes_.size()) + " exist"};
}

void fleet::spawn_sandboxes(const ask::create_sandboxes& ask, const pin_ptr& pin) {
  if (stopping_) return ask.answer(is_stopping());
  if (auto room = room_for(ask.request.n); !room) return ask.answer(std::move(room).error());  // others came since
  if (pin->network && !ask.request.network_namespaces)
    return ask.answer(error{errc::conflict, 0,
                            "snapshot '" + pin->tag +
                                "' has a network interface, and its children the same address: ask for a network "
                                "namespace each (\"per_child_netns\": true, --netns)"});
  if (ask.request.memory_limit_mib > 0 && !with_->cgroups)
    return ask.answer(error{errc::unsupported, 0,
                            "memory_limit_mib needs a cgroup v2 that coppiced may divide: start it with --cgroup"});
  auto all = std::make_shared<creation>(
      creation{ask.answer, {}, ask.request.n, std::nullopt, ask.request.request_id, clock().now()});
  for (unsigned i = 0; i < ask.request.n; ++i) {
    sandbox_entry entry;
    entry.info.id = new_sandbox_id();
    entry.info.snapshot_tag = pin->tag;
    entry.info.created_at_unix = static_cast<std::uint64_t>(std::time(nullptr));
    entry.info.state = sandbox_state::starting;
    entry.info.memory_bytes = pin->memory_bytes;
    entry.info.vcpus = pin->vcpus;
    if (ask.request.memory_limit_mib > 0) entry.info.memory_limit_mib = ask.request.memory_limit_mib;
    entry.origin = pin;
    entry.vm = home_system().spawn<sandbox_actor>(
        with_, sandbox_spec{entry.info.id, restore_spec{pin}, fleet_handle(this), ask.request.network_namespaces,
                            ask.request.memory_limit_mib * mib});
    all->ids.push_back(entry.info.id);
    starts_.push_back({entry.info.id, all});
    with_->events->emit({event_kind::sandbox_created, entry.info.id, pin->tag, {}, ask.request.request_id});
    sandboxes_.emplace(entry.info.id, std::move(entry));
  }
  count_sandboxes();
  start_next();
}

void fleet::start_next() {
  while (starting_ < limits_.parallel_starts && !starts_.empty()) {
    auto next = std::move(starts_.front());
    starts_.pop_front();
    const auto found = sandboxes_.find(next.id);
    if (next.part_of->failure || found == sandboxes_.end()) {
      start_ended(next, error{errc::cancelled, 0, "not started"});
      continue;
    }
    ++starting_;
    // All that start at once share the disk that their RAM comes from.
    const auto within = sized(start_deadline, limits_.parallel_starts * found->second.info.memory_bytes);
    request(found->second.vm, within, start_sandbox{})
        .then(
            [this, next](const sandbox_started& answer) {
              --starting_;
              start_ended(next, answer);
              start_next();
            },
            [this, next](const caf::error& failure) {
              --starting_;
              start_ended(next, from_caf(failure));
              start_next();
            });
  }
  with_->meters.queue_length("starts", starts_.size());
}

void fleet::start_ended(const pending_start& which, result<sandbox_started> outcome) {
  auto& all = *which.part_of;
  const auto found = sandboxes_.find(which.id);
  if (outcome && found != sandboxes_.end()) {
    with_->meters.sandbox_started(clock().now() - all.asked_at);
    found->second.info.state = sandbox_state::running;
    found->second.info.pid = outcome->pid;
    found->second.info.backing = outcome->backing;
    found->second.info.netns = outcome->netns;
    if (outcome->netns) found->second.info.guest_addr = std::string(guest_ip) + ":" + std::to_string(guest_agent_port);
    with_->events->emit({event_kind::sandbox_running, which.id, found->second.info.snapshot_tag, {}, all.request_id});
  } else if (!all.failure) {
    all.failure = outcome ? error{errc::cancelled, 0, which.id + " was deleted while it started"} : outcome.error();
  }
  if (--all.left == 0) finish_creation(all);
  count_sandboxes();
}

void fleet::finish_creation(const creation& all) {
  if (!all.failure) {
    std::vector<sandbox_info> infos;
    for (const auto& id : all.ids) {
      if (const auto found = sandboxes_.find(id); found != sandboxes_.end()) infos.push_back(describe(found->second));
    }
    return all.answer(std::move(infos));
  }
  for (const auto& id : all.ids) {
    const auto found = sandboxes_.find(id);
    if (found == sandboxes_.end()) continue;
    caf::anon_send(found->second.vm, stop_sandbox{});
    forget(id, event_kind::sandbox_deleted, "not created: " + all.failure->message());
  }
  spdlog::warn("no sandboxes created: {}", all.failure->message());
  all.answer(*all.failure);
}

void fleet::delete_sandbox(const ask::delete_sandbox& ask) {
  const auto found = sandboxes_.find(ask.id);
  if (found == sandboxes_.end() || found->second.deleting) return ask.answer(no_sandbox(ask.id));
  found->second.deleting = true;
  abort_branches_of(found->second, {errc::cancelled, 0, "sandbox deleted"});
  request(found->second.vm, stop_deadline, stop_sandbox{})
      .then(
          [this, ask](const finished&) {
            forget(ask.id);
            ask.answer({});
          },
          [this, ask](const caf::error& failure) {
            const auto gone = failure == caf::sec::request_receiver_down;
            forget(ask.id);
            if (gone)
              ask.answer({});
            else
              ask.answer(from_caf(failure));
          });
}

void fleet::forget(const std::string& id, event_kind why, const std::string& reason) {
  const auto found = sandboxes_.find(id);
  if (found == sandboxes_.end()) return;
  // A start that is under way, or a stop that hangs, is cut off by the actor's end.
  caf::anon_send_exit(found->second.vm, caf::exit_reason::user_shutdown);
  if (found->second.stuck) with_->meters.sandbox_stuck(id, false);
  with_->events->emit({why, id, found->second.info.snapshot_tag, reason});
  sandboxes_.erase(found);
  count_sandboxes();
  stop_goes_on();
}

void fleet::when_down(const sandbox_down& down) {
  const auto found = sandboxes_.find(down.id);
  if (found == sandboxes_.end()) return;
  with_->meters.sandbox_exited(down.how == "stopped" ? "stopped" : "died");
  if (found->second.deleting) return;  // delete_sandbox() forgets it
  forget(down.id, event_kind::sandbox_died, down.how);
}

void fleet::list_sandboxes(const ask::sandboxes& ask) {
  std::vector<sandbox_info> infos;
  for (const auto& [id, entry] : sandboxes_) infos.push_back(describe(entry));
  ask.answer(std::move(infos));
}

sandbox_info fleet::describe(const sandbox_entry& entry) const {
  auto info = entry.info;
  if (info.state != sandbox_state::starting) {
    if (!entry.branches.empty()) info.state = sandbox_state::branching;
    if (entry.stuck) info.state = sandbox_state::stuck;
  }
  return info;
}

void fleet::journal(const ask::journal& ask) {
  const auto found = sandboxes_.find(ask.id);
  if (found == sandboxes_.end()) return ask.answer(no_sandbox(ask.id));
  const auto since = found->second.journal_since.value_or(journal_reading{});
  const auto read = [this, ask, since](const guest_ram& ram) {
    with_->disk_pool->post([this, self = fleet_handle(this), ask, since, memory = ram.memory] {
      const auto reading = read_journal({memory->data(), memory->size()}, since);
      ask.answer(to_status(reading));
      if (!reading) return;
      run_in(self, [this, id = ask.id, reset = ask.reset, reading = *reading] {
        const auto entry = sandboxes_.find(id);
        if (entry == sandboxes_.end()) return;  // deleted meanwhile: nothing may be kept of it
        with_->meters.guest_longest_stall(reading.longest_stall);
        if (reset) entry->second.journal_since = reading;
      });
    });
  };
  request(found->second.vm, store_deadline, get_memory{}).then(read, [ask](const caf::error& failure) {
    ask.answer(from_caf(failure));
  });
}

void fleet::open_guest_socket(const ask::guest_socket& ask) {
  const auto found = sandboxes_.find(ask.id);
  if (found == sandboxes_.end()) return ask.answer(no_sandbox(ask.id));
  const auto open = [this, ask](const guest_network& network) {
    with_->disk_pool->post([ask, netns = network.netns] {
      auto inside = netns->tcp_socket();
      if (!inside) return ask.answer(std::move(inside).error());
      ask.answer(guest_socket{*std::move(inside), guest_ip, guest_agent_port});
    });
  };
  request(found->second.vm, store_deadline, get_network{}).then(open, [ask](const caf::error& failure) {
    ask.answer(from_caf(failure));
  });
}

void fleet::count_sandboxes() {
  std::map<sandbox_state, std::uint64_t> counts{{sandbox_state::starting, 0},
                                                {sandbox_state::running, 0},
                                                {sandbox_state::branching, 0},
                                                {sandbox_state::stuck, 0}};
  for (const auto& [id, entry] : sandboxes_) ++counts[describe(entry).state];
  for (const auto& [state, count] : counts) with_->meters.sandboxes(to_string(state), count);
}

// ---- The end --------------------------------------------------------------------------------------------------------

void fleet::stop(const ask::stop& ask) {
  stops_.push_back(ask.answer);
  if (!stopping_) {
    stopping_ = true;
    for (auto& [id, entry] : making_)
      send(entry.worker, abort_branch{{errc::cancelled, 0, "the daemon is stopping"}, true});
    run_in_after(fleet_handle(this), undo_patience, [this] { stop_sandboxes(); });
    run_in_after(fleet_handle(this), stop_patience, [this] {
      for (const auto& answer : std::exchange(stops_, {})) answer({});
    });
  }
  stop_goes_on();
}

// Branches first, so that they are undone on VMs that live; then the VMs; then the answer.
void fleet::stop_goes_on() {
  if (!stopping_ || !making_.empty()) return;
  if (!sandboxes_.empty()) return stop_sandboxes();
  for (const auto& answer : std::exchange(stops_, {})) answer({});
}

void fleet::stop_sandboxes() {
  for (auto& [id, entry] : sandboxes_) {
    if (!std::exchange(entry.deleting, true))
      request(entry.vm, stop_deadline, stop_sandbox{})
          .then([this, sandbox = id](const finished&) { forget(sandbox); },
                [this, sandbox = id](const caf::error&) { forget(sandbox); });
  }
}

}  // namespace coppice
