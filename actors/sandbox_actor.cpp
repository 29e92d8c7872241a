#include "actors/sandbox_actor.hpp"

#include <algorithm>

#include "actors/error_bridge.hpp"
#include "base/log.hpp"
#include "vmm/api_requests.hpp"

namespace coppice {
namespace {
constexpr auto first_backoff = std::chrono::milliseconds(10);
constexpr auto last_backoff = std::chrono::milliseconds(1000);

void pass_on(const result<api_reply>& answer, caf::typed_response_promise<finished>& to) {
  if (answer)
    to.deliver(finished{});
  else
    to.deliver(to_caf(answer.error()));
}
}  // namespace

sandbox_actor::sandbox_actor(caf::actor_config& config, services_ptr with, sandbox_spec spec)
    : sandbox_handle::base(config),
      with_(std::move(with)),
      spec_(std::move(spec)),
      folder_{with_->run_dir / spec_.id},
      live_(std::holds_alternative<restore_spec>(spec_.from) && with_->vmm.capabilities().live()) {}

sandbox_actor::behavior_type sandbox_actor::make_behavior() {
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const start_sandbox&) { return start(); },
      [this](const struct take_turn& ask) { return take_turn(ask); },
      [this](const struct give_back& ask) { give_back(ask.branch, true); },
      [this](const give_back_pause& ask) { give_back(ask.branch, false); },
      [this](const struct begin_copy&) { return begin_copy(); },
      [this](const probe_vm& ask) { return probe(ask); },
      [this](const pause_vm& ask) { return pause(ask); },
      [this](const snapshot_vm& ask) { return snapshot(ask); },
      [this](const resume_vm& ask) { return resume(ask); },
      [this](const set_diff_base& ask) {
        diff_base_ = ask.base;
        no_base_.clear();
      },
      [this](const stop_sandbox&) { return stop(); },
      [this](const get_memory&) -> caf::result<guest_ram> {
        if (memory_) return guest_ram{memory_};
        return to_caf({errc::unsupported, 0, "the memory of " + spec_.id + " is not shared with the daemon"});
      },
      [this](const get_network&) -> caf::result<guest_network> {
        if (network_) return guest_network{network_};
        return to_caf({errc::unsupported, 0,
                       "sandbox '" + spec_.id +
                           "' has no guest address: it was not created with a network namespace (per_child_netns)"});
      },
  };
}

// Whatever the reason: the VMM and what belongs to it are gone soon after, and nobody here waits for that.
void sandbox_actor::on_exit() {
  state_ = run_state::gone;
  spec_.from = boot_spec{};  // unpins the snapshot it came from: whoever hears of the end may delete it
  auto doomed = std::make_shared<prepared>(
      prepared{.vmm = std::move(vmm_), .memory = std::move(memory_), .network = std::move(network_)});
  with_->disk_pool->post([doomed, guard = std::move(protected_), path = folder_.path]() mutable {
    guard.reset();
    doomed->vmm.reset();
    doomed->memory.reset();
    doomed->network.reset();
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  });
  for (auto& promise : stops_) promise.deliver(finished{});
  stops_.clear();
  starting_ = {};
  resuming_ = {};
}

caf::result<turn_grant> sandbox_actor::take_turn(const struct take_turn& ask) {
  if (state_ == run_state::starting || state_ == run_state::gone) return illegal("branch");
  auto promise = make_response_promise<turn_grant>();
  const auto grant = [this, promise]() mutable { promise.deliver(turn_grant{diff_base_, no_base_}); };
  if (ask.bitmap)
    bitmap_turn_.ask(ask.branch, [this, branch = ask.branch, grant] { pause_turn_.ask(branch, grant); });
  else
    pause_turn_.ask(ask.branch, grant);
  return promise;
}

void sandbox_actor::give_back(std::uint64_t branch, bool bitmap_too) {
  if (bitmap_too) bitmap_turn_.give_back(branch);
  if (pause_turn_.holder() != branch || state_ == run_state::running) {
    pause_turn_.give_back(branch);
    return;
  }
  pause_turn_due_ = branch;
  if (state_ == run_state::paused || state_ == run_state::pausing) {
    if (!resuming_.pending()) retry_resume();
  }
}

caf::result<memory_session> sandbox_actor::begin_copy() {
  if (!live_) {
    const auto missing = with_->vmm.capabilities().missing_for_live();
    return to_caf(
        {errc::unsupported, 0, "no live branch with this VMM: it lacks " + missing + "; use mode full or diff"});
  }
  if (!is_legal(state_, run_command::begin_copy)) return illegal("begin a copy");
  auto session = protected_->begin();
  if (!session) return to_caf(session.error());
  return memory_session{share_offloaded(with_->image_pool, std::move(*session))};
}

caf::result<finished> sandbox_actor::probe(const probe_vm& ask) {
  auto promise = make_response_promise<finished>();
  call(api_requests::describe(), ask.deadline,
       [promise](const result<api_reply>& answer) mutable { pass_on(answer, promise); });
  return promise;
}

caf::result<finished> sandbox_actor::pause(const pause_vm& ask) {
  if (!is_legal(state_, run_command::pause)) return illegal("pause");
  state_ = run_state::pausing;
  oldest_attempt_ = ++resume_attempt_;
  held_ = held_pause{ask.mode, clock().now()};
  auto promise = make_response_promise<finished>();
  call(api_requests::pause(), ask.deadline, [this, promise](result<api_reply> answer) mutable {
    if (!answer) {
      promise.deliver(to_caf(answer.error()));
      return;
    }
    if (state_ == run_state::pausing && !resuming_.pending()) state_ = run_state::paused;
    promise.deliver(finished{});
  });
  return promise;
}

caf::result<finished> sandbox_actor::snapshot(const snapshot_vm& ask) {
  if (!is_legal(state_, run_command::snapshot)) return illegal("snapshot");
  const auto vmstate = vmm_->let_write(ask.vmstate);
  if (!vmstate) return to_caf(vmstate.error());
  auto request = api_requests::snapshot_vmstate_only(vmstate->path);
  std::optional<write_grant> memory;
  if (ask.kind != vm_snapshot::vmstate_only) {
    auto granted = vmm_->let_write(ask.memory);
    if (!granted) return to_caf(granted.error());
    memory = *std::move(granted);
    // From here on the bitmap may have been reset, until set_diff_base says from where it counts.
    diff_base_.reset();
    no_base_ = "the last full or diff branch did not complete";
    request = ask.kind == vm_snapshot::full ? api_requests::snapshot_full(vmstate->path, memory->path)
                                            : api_requests::snapshot_diff(vmstate->path, memory->path);
  }
  auto promise = make_response_promise<finished>();
  call(std::move(request), ask.deadline,
       [promise, vmstate = *vmstate, memory](const result<api_reply>& answer) mutable { pass_on(answer, promise); });
  return promise;
}

caf::result<finished> sandbox_actor::resume(const resume_vm& ask) {
  if (!is_legal(state_, run_command::resume)) return illegal("resume");
  if (state_ == run_state::running) return finished{};
  if (state_ == run_state::stuck) return to_caf({errc::conflict, 0, spec_.id + " is stuck: its resume is retried"});
  if (resuming_.pending()) return to_caf({errc::conflict, 0, spec_.id + " is being resumed already"});
  resuming_ = make_response_promise<finished>();
  auto promise = resuming_;
  send_resume(ask.deadline);
  return promise;
}

void sandbox_actor::send_resume(std::chrono::milliseconds deadline) {
  const auto attempt = ++resume_attempt_;
  call(api_requests::resume(), deadline, [this, attempt](result<api_reply> answer) {
    when_resumed(attempt, answer ? result<void>{} : result<void>{answer.error()});
  });
  // The channel keeps the deadline; should it not, nobody may wait for it.
  after(deadline, [this, attempt] {
    when_resumed(attempt, error{errc::deadline_exceeded, 0, "the VMM did not answer the resume"});
  });
}

void sandbox_actor::when_resumed(std::uint64_t attempt, result<void> outcome) {
  if (state_ == run_state::gone || state_ == run_state::running || attempt < oldest_attempt_) return;
  if (outcome) return running_again();  // an older attempt's late success is a success
  if (attempt != resume_attempt_) return;
  ++resume_attempt_;  // its timer and its late failure are stale
  if (state_ != run_state::stuck) {
    state_ = run_state::stuck;
    backoff_ = first_backoff;
    spdlog::error("ALARM {} is stuck: resume failed ({}); retrying until it runs", spec_.id, outcome.error().message());
    send(spec_.fleet, sandbox_stuck{spec_.id, true});
  }
  if (resuming_.pending()) resuming_.deliver(to_caf(outcome.error()));
  after(backoff_, [this, attempt = resume_attempt_] {
    if (attempt == resume_attempt_) retry_resume();  // else it has run since, and may be paused again
  });
  backoff_ = std::min(backoff_ * 2, last_backoff);
}

void sandbox_actor::retry_resume() {
  if (state_ == run_state::gone || state_ == run_state::running) return;
  if (backoff_ < first_backoff) backoff_ = first_backoff;
  send_resume(with_->deadlines.of(branch_step::resume));
}

void sandbox_actor::running_again() {
  ++resume_attempt_;
  const bool was_stuck = state_ == run_state::stuck;
  state_ = run_state::running;
  backoff_ = {};
  if (const auto held = std::exchange(held_, std::nullopt)) {
    const std::chrono::duration<double> paused = clock().now() - held->since;
    with_->meters.pause_seconds(held->mode, paused.count());
  }
  if (was_stuck) {
    spdlog::warn("{} runs again", spec_.id);
    send(spec_.fleet, sandbox_stuck{spec_.id, false});
  }
  if (resuming_.pending()) resuming_.deliver(finished{});
  if (pause_turn_due_) pause_turn_.give_back(*std::exchange(pause_turn_due_, std::nullopt));
}

caf::result<finished> sandbox_actor::stop() {
  stopping_ = true;
  auto promise = make_response_promise<finished>();
  stops_.push_back(promise);
  if (vmm_)
    vmm_->kill();  // when_exited() answers
  else if (state_ != run_state::starting || !starting_.pending())
    quit();
  return promise;
}

void sandbox_actor::when_exited(const exit_status& status) {
  if (state_ == run_state::gone) return;
  const bool was_starting = state_ == run_state::starting && starting_.pending();
  if (was_starting && !stopping_) return start_failed({errc::io, 0, "the VMM ended: " + status.describe()});
  state_ = run_state::gone;
  if (was_starting) starting_.deliver(to_caf({errc::cancelled, 0, "stopped while starting"}));
  const auto how = stopping_ ? "stopped" : status.describe();
  if (!stopping_) {
    const auto failure = to_caf({errc::unavailable, 0, "the VMM of " + spec_.id + " ended (" + how + ")"});
    if (resuming_.pending()) resuming_.deliver(failure);
    with_->disk_pool->post([id = spec_.id, how, log = folder_.log_file()] {
      const auto tail = log_tail(log);
      spdlog::warn("the VMM of {} ended ({}){}{}", id, how, tail.empty() ? "" : "; its last words: ", tail);
    });
    send(spec_.fleet, sandbox_down{spec_.id, how});
    return std::holds_alternative<boot_spec>(spec_.from) ? guest_ended(how) : quit(failure);
  }
  send(spec_.fleet, sandbox_down{spec_.id, how});
  quit();
}

// What a guest that was booted wrote last is mostly why it ended.
void sandbox_actor::guest_ended(const std::string& how) {
  constexpr unsigned most_lines = 25;  // a panic of Linux, whose reason stands above its call trace
  constexpr std::size_t most_bytes = 1600;
  offload(
      *with_->disk_pool, [log = folder_.log_file()] { return log_tail(log, most_lines, most_bytes); },
      [this, how](const std::string& console) {
        quit(to_caf({errc::conflict, 0,
                     "the guest ended before its snapshot was taken (" + how + ")" +
                         (console.empty() ? "; it wrote nothing to its console" : "; its console ends: " + console)}));
      });
}

caf::error sandbox_actor::illegal(std::string_view command) const {
  return to_caf({state_ == run_state::gone ? errc::unavailable : errc::conflict, 0,
                 spec_.id + " is " + std::string(row_of(state_).name) + ": can't " + std::string(command) + " now"});
}

void sandbox_actor::call(api_request request, std::chrono::milliseconds deadline,
                         std::function<void(result<api_reply>)> then) {
  vmm_->api().call(std::move(request), deadline,
                   [self = sandbox_handle(this), then = std::move(then)](result<api_reply> answer) mutable {
                     run_in(self, [then, answer = std::move(answer)]() mutable { then(std::move(answer)); });
                   });
}

void sandbox_actor::after(std::chrono::milliseconds delay, std::function<void()> body) {
  run_in_after(sandbox_handle(this), delay, std::move(body));
}

}  // namespace coppice
