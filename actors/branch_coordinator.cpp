#include "actors/branch_coordinator.hpp"

#include <algorithm>

#include "actors/copy_stream.hpp"
#include "base/log.hpp"
#include "base/units.hpp"

namespace coppice {
namespace {
constexpr std::chrono::milliseconds shortest_deadline{1};
constexpr auto longest_copy = std::chrono::hours(24);  // the watchdog in copy_stream ends it much earlier
constexpr auto abort_deadline = std::chrono::seconds(5);
constexpr auto drop_deadline = std::chrono::seconds(35);  // may wait for a publish that is under way
}  // namespace

branch_coordinator::branch_coordinator(caf::actor_config& config, services_ptr with, branch_job job)
    : coordinator_handle::base(config), with_(std::move(with)), job_(std::move(job)) {}

branch_coordinator::behavior_type branch_coordinator::make_behavior() {
  set_down_handler([this](const caf::down_msg& down) {
    if (step_ != branch_step::publish) step_failed(from_caf(down.reason));
  });
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const begin_branch&) {
        monitor(job_.vm);
        begun_ = clock().now();
        enter(branch_step::reserve);
      },
      [this](const abort_branch& ask) { abort(ask); },
  };
}

void branch_coordinator::on_exit() {
  if (job_.vm) demonitor(job_.vm.address());  // or the sandbox would keep this actor's memory until it ends itself
  if (staged_) staged_->given_up = true;
  staged_.reset();
  if (stream_) caf::anon_send_exit(stream_, caf::exit_reason::user_shutdown);
  stream_ = nullptr;
  job_.vm = nullptr;
}

// ---- The machine ----------------------------------------------------------------------------------------------------

void branch_coordinator::enter(branch_step step) {
  using action = void (branch_coordinator::*)();
  static constexpr std::array<action, step_table.size()> actions{
      &branch_coordinator::reserve,  &branch_coordinator::prearm, &branch_coordinator::pause,
      &branch_coordinator::snapshot, &branch_coordinator::rearm,  &branch_coordinator::resume,
      &branch_coordinator::copy,     &branch_coordinator::publish};
  ++generation_;
  step_ = step;
  step_started_ = clock().now();
  const bool out_of_budget = live() && clock().now() >= budget_end_;
  if (out_of_budget && (step == branch_step::snapshot || step == branch_step::rearm || step == branch_step::resume))
    return step_failed({errc::deadline_exceeded, 0, "the pause is over its budget"});
  (this->*actions[static_cast<std::size_t>(step)])();
}

std::chrono::microseconds branch_coordinator::note_step() {
  const auto took = since(step_started_);
  timeline_.push_back(
      {to_string(step_), std::chrono::duration_cast<std::chrono::microseconds>(step_started_ - begun_), took});
  return took;
}

void branch_coordinator::step_done() {
  const auto took = note_step();
  with_->meters.step_seconds(to_string(step_), std::chrono::duration<double>(took).count());
  switch (step_) {
    case branch_step::prearm:
      prearmed_ = took;
      break;
    case branch_step::pause:
      breakdown_.pause = took;
      break;
    case branch_step::snapshot:
      breakdown_.snapshot = took;
      break;
    case branch_step::rearm:
      breakdown_.rearm = took;
      break;
    case branch_step::resume:
      breakdown_.resume = took;
      resumed();
      break;
    default:
      break;
  }
  auto next = next_step(merge_ || live() ? job_.mode : branch_mode::full, step_);
  if (next) enter(*next);
}

void branch_coordinator::step_failed(const error& why) {
  if (undoing_ || reported_) return;
  note_step();
  auto reason = why;
  if (reason.code == errc::deadline_exceeded) {
    with_->meters.deadline_missed(to_string(step_));
    if (live() && resume_due_ && step_ != branch_step::resume && clock().now() >= budget_end_)
      reason.context +=
          " (budget of the whole pause: " + std::to_string(with_->deadlines.pause_budget.count()) + " ms)";
  } else {
    with_->meters.step_failed(to_string(step_));
  }
  reason.context = "branch '" + job_.record.tag + "' of " + job_.sandbox + ": step " + std::string(to_string(step_)) +
                   (reason.code == errc::deadline_exceeded ? " missed its deadline: " : " failed: ") + reason.context;
  undo(std::move(reason));
}

// The present step's, cut to what is left of the pause's budget.
std::chrono::milliseconds branch_coordinator::deadline() const {
  const auto own = with_->deadlines.of(step_);
  if (!live()) return step_ == branch_step::snapshot ? sized(std::chrono::seconds(30), job_.record.memory_bytes) : own;
  // Protecting takes some 35 ms a GiB; the guest runs meanwhile.
  if (step_ == branch_step::prearm) return own + std::chrono::milliseconds(job_.record.memory_bytes / (4 * mib));
  if (!spec_of(step_).in_pause) return own;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(budget_end_ - step_started_);
  return std::clamp(left, shortest_deadline, std::max(own, shortest_deadline));
}

// ---- The steps ------------------------------------------------------------------------------------------------------

void branch_coordinator::reserve() {
  perform(job_.store, deadline(), reserve_snapshot{job_.record.tag, job_.record.memory_bytes},
          &branch_coordinator::have_staging);
}

void branch_coordinator::have_staging(const reservation& answer) {
  staged_ = answer.staged;
  perform(job_.vm, with_->deadlines.turn, take_turn{job_.id, !live()}, &branch_coordinator::have_turn);
}

void branch_coordinator::have_turn(const turn_grant& answer) {
  if (live()) return perform(job_.vm, deadline(), begin_copy{}, &branch_coordinator::have_session);
  if (job_.mode != branch_mode::diff) return step_done();
  if (!answer.diff_base) return no_diff_base(answer.no_base);
  const auto generation = generation_;
  request(job_.store, deadline(), pin_snapshot{answer.diff_base->tag, answer.diff_base})
      .then(
          [this, generation](const pinned_snapshot& pinned) {
            if (generation == generation_) have_diff_base(pinned);
          },
          [this, generation](const caf::error& failure) {
            if (generation == generation_) no_diff_base(from_caf(failure).message());
          });
}

void branch_coordinator::have_diff_base(const pinned_snapshot& answer) {
  diff_base_ = answer.pin;
  merge_ = true;
  step_done();
}

void branch_coordinator::no_diff_base(const std::string& why) {
  note_ = "a full image was written: there is no base for a diff, " + why;
  step_done();
}

void branch_coordinator::have_session(const memory_session& answer) {
  stream_ = home_system().spawn<copy_stream>(with_, answer.session);
  session_ = answer.session;
  step_done();
}

void branch_coordinator::prearm() {
  perform(stream_, deadline(), prearm_memory{}, &branch_coordinator::prearmed);
}

// A VMM that doesn't answer is found before its guest is paused. And what the pause runs next, here and in the VMM, is
// in the caches again: the pre-arm has just gone through the page tables of all RAM.
void branch_coordinator::prearmed(const finished&) {
  const auto left = std::max(std::chrono::ceil<std::chrono::milliseconds>(step_started_ + deadline() - clock().now()),
                             shortest_deadline);
  perform(job_.vm, left, probe_vm{left}, &branch_coordinator::done_answer);
}

void branch_coordinator::pause() {
  pause_started_ = step_started_;
  budget_end_ = pause_started_ + with_->deadlines.pause_budget;
  resume_due_ = true;
  perform(job_.vm, deadline(), pause_vm{deadline(), job_.mode}, &branch_coordinator::done_answer);
}

void branch_coordinator::snapshot() {
  snapshot_vm ask{vm_snapshot::vmstate_only, staged_->vmstate_path, {}, deadline()};
  if (!live()) {
    ask.kind = merge_ ? vm_snapshot::diff : vm_snapshot::full;
    ask.memory = merge_ ? staged_->directory / "diff.bin" : staged_->memory_path;
  }
  perform(job_.vm, deadline(), std::move(ask), &branch_coordinator::done_answer);
}

void branch_coordinator::rearm() {
  perform(stream_, deadline(), rearm_memory{}, &branch_coordinator::done_answer);
}

void branch_coordinator::resume() {
  perform(job_.vm, deadline(), resume_vm{deadline()}, &branch_coordinator::done_answer);
}

void branch_coordinator::resumed() {
  resume_due_ = false;
  breakdown_.total = since(pause_started_);
  copy_started_ = clock().now();
  send(job_.vm, give_back_pause{job_.id});
  send(job_.fleet, branch_resumed{job_.id, breakdown_, note_, session_});
}

void branch_coordinator::copy() {
  if (live()) return perform(stream_, longest_copy, copy_memory{staged_}, &branch_coordinator::copied);
  perform(job_.store, sized(deadline(), job_.record.memory_bytes),
          compose_image{staged_, diff_base_, staged_->directory / "diff.bin", job_.record.memory_bytes},
          &branch_coordinator::done_answer);
}

void branch_coordinator::copied(const copied_memory& answer) {
  copy_ = answer.copied.summary;
  copy_->prearm = prearmed_;
  if (copy_->copy.count() == 0) copy_->copy = since(copy_started_);
  job_.record.memory_chunk_checksums = answer.copied.chunk_checksums;
  with_->meters.copy_finished(*copy_);
  step_done();
}

void branch_coordinator::publish() {
  diff_base_.reset();  // whoever hears of the end may delete it
  job_.record.mode = job_.mode;
  job_.record.pause = breakdown_;
  job_.record.copy = copy_;
  // Without checksums from the copy, the store reads the image to make them.
  const auto within = live() ? deadline() : sized(deadline(), job_.record.memory_bytes);
  perform(job_.store, within, publish_snapshot{staged_, job_.record}, &branch_coordinator::published);
}

void branch_coordinator::published(const published_snapshot& answer) {
  step_done();
  if (!live()) send(job_.vm, set_diff_base{answer.record});
  report(answer.record);
}

// ---- Undo -----------------------------------------------------------------------------------------------------------

void branch_coordinator::abort(const abort_branch& ask) {
  if (undoing_ || reported_ || (step_ == branch_step::publish && !ask.even_publishing)) return;
  auto reason = ask.reason;
  reason.context = "branch '" + job_.record.tag + "' of " + job_.sandbox + ": given up in step " +
                   std::string(to_string(step_)) + ": " + reason.context;
  undo(std::move(reason));
}

void branch_coordinator::undo(error why) {
  if (undoing_ || reported_) return;
  undoing_ = true;
  ++generation_;
  reason_ = std::move(why);
  if (staged_) staged_->given_up = true;
  undo_pause_and_copy();
}

template <class Handle, class Message>
void branch_coordinator::attempt(const Handle& to, std::chrono::milliseconds within, Message message,
                                 void (branch_coordinator::*then)()) {
  request(to, within, std::move(message))
      .then([this, then](const finished&) { (this->*then)(); }, [this, then](const caf::error&) { (this->*then)(); });
}

// Both at once: neither may wait for the other. If the resume fails, the sandbox goes on trying by itself.
void branch_coordinator::undo_pause_and_copy() {
  undo_parts_ = 1U + (resume_due_ ? 1U : 0U) + (stream_ ? 1U : 0U);
  if (resume_due_) {
    const auto within = with_->deadlines.of(branch_step::resume);
    attempt(job_.vm, within, resume_vm{within}, &branch_coordinator::undo_staging);
  }
  if (stream_) attempt(stream_, abort_deadline, abort_copy{}, &branch_coordinator::undo_staging);
  undo_staging();
}

// After the last part above.
void branch_coordinator::undo_staging() {
  if (undo_parts_ == 0 || --undo_parts_ > 0) return;
  if (!staged_) return report(reason_);
  request(job_.store, drop_deadline, drop_staging{staged_})
      .then([this](const finished&) { report(reason_); },
            [this](const caf::error& failure) {
              spdlog::error("branch '{}': its staging may be left: {}", job_.record.tag, from_caf(failure).message());
              report(reason_);
            });
}

void branch_coordinator::report(result<record_ptr> outcome) {
  if (reported_) return;
  reported_ = true;
  log_end(outcome);
  if (job_.vm) send(job_.vm, give_back{job_.id});
  send(job_.fleet, branch_ended{job_.id, std::move(outcome), note_, std::move(timeline_)});
  quit();
}

// The one line of a branch in the log.
void branch_coordinator::log_end(const result<record_ptr>& outcome) const {
  const auto us = [](std::chrono::microseconds time) { return static_cast<std::int64_t>(time.count()); };
  const auto count = [](std::uint64_t number) { return static_cast<std::int64_t>(number); };
  const bool cancelled = !outcome && outcome.error().code == errc::cancelled;
  const std::string reason = outcome ? "" : outcome.error().message();
  const auto copied = copy_.value_or(copy_summary{});
  const auto message = fmt::format(
      "branch {} of {} {}: {}; pause {} us (pause {}, snapshot {}, rearm {}, resume {}); prearm {} us, copy {} us, "
      "{} bulk, {} captured, {} faults{}{}",
      job_.record.tag, job_.sandbox, to_string(job_.mode), outcome ? "ready" : reason, us(breakdown_.total),
      us(breakdown_.pause), us(breakdown_.snapshot), us(breakdown_.rearm), us(breakdown_.resume), us(prearmed_),
      us(copied.copy), copied.bulk_pages, copied.captured_pages, copied.faults, note_.empty() ? "" : "; " + note_,
      job_.request_id.empty() ? "" : "; request " + job_.request_id);
  const std::array<log_field, 19> fields{{{"event", "branch"},
                                          {"tag", job_.record.tag},
                                          {"sandbox", job_.sandbox},
                                          {"mode", to_string(job_.mode)},
                                          {"outcome", outcome     ? "ready"
                                                      : cancelled ? "cancelled"
                                                                  : "failed"},
                                          {"step", to_string(step_)},
                                          {"reason", reason},
                                          {"note", note_},
                                          {"request_id", job_.request_id},
                                          {"pause_total_us", us(breakdown_.total)},
                                          {"pause_us", us(breakdown_.pause)},
                                          {"snapshot_us", us(breakdown_.snapshot)},
                                          {"rearm_us", us(breakdown_.rearm)},
                                          {"resume_us", us(breakdown_.resume)},
                                          {"prearm_us", us(prearmed_)},
                                          {"copy_us", us(copied.copy)},
                                          {"bulk_pages", count(copied.bulk_pages)},
                                          {"captured_pages", count(copied.captured_pages)},
                                          {"faults", count(copied.faults)}}};
  log_with(outcome || cancelled ? spdlog::level::info : spdlog::level::warn, message, fields);
}

}  // namespace coppice
