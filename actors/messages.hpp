// Every message of the daemon's actors, and every actor's interface.
//
// All are local to the process (they carry handles, fds and callbacks). Failures are answered as caf::error made by
// error_bridge.hpp; "errors" below are the codes besides deadline_exceeded (the asker's own deadline) and unavailable
// (the actor is gone). "Repeatable": sending it twice does no harm.
#pragma once

#include <atomic>
#include <caf/actor_cast.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/send.hpp>
#include <caf/typed_actor.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/steps.hpp"
#include "base/fd.hpp"
#include "control_plane/control_plane.hpp"
#include "copy_engine/copy_engine.hpp"
#include "store/store.hpp"
#include "vmm/network_namespace.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

// ---- Vocabulary -----------------------------------------------------------------------------------------------------

// Work that a callback of another thread hands to its actor: run in the actor, dropped if the actor is gone.
struct continuation {
  struct work {
    virtual ~work() = default;
    virtual void run() = 0;
  };
  std::shared_ptr<work> what;
};

// An answer without a value.
struct finished {};

// A snapshot in the making, its image open for writing. Its destruction (in the worker pool) removes every trace.
struct staging {
  std::mutex in_use;                  // held by whatever works on it in the pool
  std::atomic<bool> given_up{false};  // set by the undo: a publish that ends late is taken back
  std::unique_ptr<staged_snapshot> staged;
  std::string published_tag;  // once it is a snapshot
  unique_fd image;
  std::filesystem::path directory;
  std::filesystem::path memory_path;
  std::filesystem::path vmstate_path;
};
using staging_ptr = std::shared_ptr<staging>;
using record_ptr = std::shared_ptr<const snapshot_record>;  // what a snapshot was when it was published
using pin_ptr = std::shared_ptr<const snapshot_record>;     // as long as it lives, the snapshot can't be removed
using session_ptr = std::shared_ptr<copy_session>;          // destroyed in the worker pool

// The way to a caller outside of the actors. Completes exactly once: if all copies go unanswered, with `unavailable`.
template <class T>
class reply {
 public:
  using completion = std::function<void(result<T>)>;
  explicit reply(completion call) : state_(std::make_shared<state>(std::move(call))) {}
  void operator()(result<T> answer) const { state_->complete(std::move(answer)); }

 private:
  struct state {
    explicit state(completion call) : call_(std::move(call)) {}
    state(const state&) = delete;
    state& operator=(const state&) = delete;
    ~state() { complete(error{errc::unavailable, 0, "the daemon is stopping"}); }
    void complete(result<T> answer) {
      if (auto call = std::exchange(call_, nullptr)) call(std::move(answer));
    }
    completion call_;
  };
  std::shared_ptr<state> state_;
};

// ---- store ----------------------------------------------------------------------------------------------------------

// -> reservation. Errors: as snapshot_store::reserve. Not repeatable.
struct reserve_snapshot {
  std::string tag;
  std::uint64_t memory_bytes = 0;
};
struct reservation {
  staging_ptr staged;
};
// -> published_snapshot: it is listed and durable. Errors: as snapshot_store::publish; the staging is gone then. Not
// repeatable.
struct publish_snapshot {
  staging_ptr staged;
  snapshot_record record;
};
struct published_snapshot {
  record_ptr record;
};
// -> finished when no trace is left. Repeatable.
struct drop_staging {
  staging_ptr staged;
};
// -> finished: the staged image is `base` overlaid by the diff file, which is removed. Errors: no_space, io.
struct compose_image {
  staging_ptr staged;
  pin_ptr base;
  std::filesystem::path diff;
  std::uint64_t memory_bytes = 0;
};
// -> pinned_snapshot. Errors: not_found (also if another snapshot than `same_as` has the tag now). Repeatable.
struct pin_snapshot {
  std::string tag;
  record_ptr same_as;  // may be null
};
struct pinned_snapshot {
  pin_ptr pin;
};
// -> finished. Errors: not_found, conflict. Repeatable (not_found then).
struct remove_snapshot {
  std::string tag;
};
// -> published_snapshot. Errors: not_found. Repeatable.
struct find_snapshot {
  std::string tag;
};
// -> verify_report. Errors: not_found, io. Repeatable.
struct verify_snapshot {
  std::string tag;
};

using store_handle = caf::typed_actor<
    caf::reacts_to<continuation>, caf::replies_to<reserve_snapshot>::with<reservation>,
    caf::replies_to<publish_snapshot>::with<published_snapshot>, caf::replies_to<drop_staging>::with<finished>,
    caf::replies_to<compose_image>::with<finished>, caf::replies_to<pin_snapshot>::with<pinned_snapshot>,
    caf::replies_to<remove_snapshot>::with<finished>, caf::replies_to<find_snapshot>::with<published_snapshot>,
    caf::replies_to<verify_snapshot>::with<verify_report>>;

// ---- copy_stream ----------------------------------------------------------------------------------------------------

// -> finished. Errors: as copy_session. Not repeatable.
struct prearm_memory {};
struct rearm_memory {};
// -> copied_memory, whenever the copy ends; deadline_exceeded if it makes no progress. Not repeatable.
struct copy_memory {
  staging_ptr staged;
};
struct copied_memory {
  copy_result copied;
};
// -> finished: RAM is unprotected, the engine touches neither RAM nor image. Repeatable, legal at any time.
struct abort_copy {};

using copy_stream_handle =
    caf::typed_actor<caf::reacts_to<continuation>, caf::replies_to<prearm_memory>::with<finished>,
                     caf::replies_to<rearm_memory>::with<finished>, caf::replies_to<copy_memory>::with<copied_memory>,
                     caf::replies_to<abort_copy>::with<finished>>;

// ---- sandbox -------------------------------------------------------------------------------------------------------

// -> sandbox_started: from a snapshot, running, and attached to the copy engine if the VMM can. A failed start ends
// the actor. Errors: unsupported, io, no_space, conflict (the VMM refused). Once.
struct start_sandbox {};
struct sandbox_started {
  std::int64_t pid = 0;
  std::string backing;
  std::optional<std::string> netns;
};
// -> turn_grant when no other branch of this VM holds it. Errors: conflict (not running). `bitmap`: also the turn to
// read the VMM's dirty bitmap (full and diff), held until give_back. Not repeatable.
struct take_turn {
  std::uint64_t branch = 0;
  bool bitmap = false;
};
struct turn_grant {
  record_ptr diff_base;  // the snapshot that the VMM's dirty bitmap counts from; it may be deleted by now
  std::string no_base;   // why there is none
};
// The branch holds and waits for nothing more; a VM that it left paused is resumed first. Repeatable.
struct give_back {
  std::uint64_t branch = 0;
};
// The same for the pause alone, after the resume: the next branch may pause. Repeatable.
struct give_back_pause {
  std::uint64_t branch = 0;
};
// -> memory_session. Errors: unsupported (names what is missing for live), unavailable. Not repeatable.
struct begin_copy {};
struct memory_session {
  session_ptr session;
};
// -> finished: the VMM's API answers. Errors: unavailable, conflict (the VMM refused). Repeatable.
struct probe_vm {
  std::chrono::milliseconds deadline{};
};
// -> finished. Errors: conflict (in this state, or the VMM refused). Not repeatable.
struct pause_vm {
  std::chrono::milliseconds deadline{};
  branch_mode mode = branch_mode::live;  // for the metrics
};
enum class vm_snapshot { vmstate_only, full, diff };
struct snapshot_vm {
  vm_snapshot kind = vm_snapshot::vmstate_only;
  std::filesystem::path vmstate;
  std::filesystem::path memory;
  std::chrono::milliseconds deadline{};
};
// -> finished: it runs. On an error the sandbox is stuck, and goes on trying by itself. Repeatable.
struct resume_vm {
  std::chrono::milliseconds deadline{};
};
// The dirty bitmap counts from this snapshot now.
struct set_diff_base {
  record_ptr base;
};
// -> finished: the process is gone; the actor ends. Repeatable.
struct stop_sandbox {};
// -> guest_ram. Errors: unsupported. Repeatable.
struct get_memory {};
struct guest_ram {
  std::shared_ptr<guest_memory> memory;
};
// -> guest_network. Errors: unsupported. Repeatable.
struct get_network {};
struct guest_network {
  std::shared_ptr<const network_namespace> netns;
};

using sandbox_handle =
    caf::typed_actor<caf::reacts_to<continuation>, caf::replies_to<start_sandbox>::with<sandbox_started>,
                     caf::replies_to<take_turn>::with<turn_grant>, caf::reacts_to<give_back>,
                     caf::reacts_to<give_back_pause>, caf::replies_to<begin_copy>::with<memory_session>,
                     caf::replies_to<probe_vm>::with<finished>, caf::replies_to<pause_vm>::with<finished>,
                     caf::replies_to<snapshot_vm>::with<finished>, caf::replies_to<resume_vm>::with<finished>,
                     caf::reacts_to<set_diff_base>, caf::replies_to<stop_sandbox>::with<finished>,
                     caf::replies_to<get_memory>::with<guest_ram>, caf::replies_to<get_network>::with<guest_network>>;

// ---- branch_coordinator, base_builder -------------------------------------------------------------------------------

// The branch begins. Once.
struct begin_branch {};
// Undo, and end with `reason`. Without effect once the copy is complete, unless `even_publishing`. Repeatable.
struct abort_branch {
  error reason;
  bool even_publishing = false;
};

using coordinator_handle =
    caf::typed_actor<caf::reacts_to<continuation>, caf::reacts_to<begin_branch>, caf::reacts_to<abort_branch>>;

// ---- fleet ----------------------------------------------------------------------------------------------------------

// Requests of the API, each with the way back.
namespace ask {
struct snapshots {
  reply<std::vector<snapshot_info>> answer;
};
struct snapshot {
  std::string tag;
  reply<snapshot_info> answer;
};
struct create_snapshot {
  create_snapshot_request request;
  reply<snapshot_info> answer;
};
struct delete_snapshot {
  std::string tag;
  bool cascade = false;  // with its descendants
  reply<void> answer;
};
struct verify {
  std::string tag;
  reply<verify_report> answer;
};
struct sandboxes {
  reply<std::vector<sandbox_info>> answer;
};
struct sandbox {
  std::string id;
  reply<sandbox_info> answer;
};
struct create_sandboxes {
  create_sandboxes_request request;
  reply<std::vector<sandbox_info>> answer;
};
struct delete_sandbox {
  std::string id;
  reply<void> answer;
};
struct branch {
  std::string id;
  branch_request request;
  reply<snapshot_info> answer;
};
struct journal {
  std::string id;
  bool reset = false;
  reply<journal_status> answer;
};
struct guest_socket {
  std::string id;
  reply<coppice::guest_socket> answer;
};
// Answered when no branch, VM or staging is left.
struct stop {
  reply<void> answer;
};
}  // namespace ask

// What may begin from now on. Repeatable.
struct set_limits {
  daemon_limits limits;
};

// What the fleet hears from its children. None is answered.
struct sandbox_stuck {
  std::string id;
  bool stuck = false;
};
struct sandbox_down {
  std::string id;
  std::string how;  // "signal 9 (Killed)"
};
struct branch_resumed {
  std::uint64_t branch = 0;
  pause_breakdown pause;
  std::string note;
  std::weak_ptr<copy_session> session;  // for its progress
};
struct branch_ended {
  std::uint64_t branch = 0;
  result<record_ptr> outcome;
  std::string note;
  std::vector<step_time> timeline;
};

using fleet_handle =
    caf::typed_actor<caf::reacts_to<continuation>, caf::reacts_to<ask::snapshots>, caf::reacts_to<ask::snapshot>,
                     caf::reacts_to<ask::create_snapshot>, caf::reacts_to<ask::delete_snapshot>,
                     caf::reacts_to<ask::verify>, caf::reacts_to<ask::sandboxes>, caf::reacts_to<ask::sandbox>,
                     caf::reacts_to<ask::create_sandboxes>, caf::reacts_to<ask::delete_sandbox>,
                     caf::reacts_to<ask::branch>, caf::reacts_to<ask::journal>, caf::reacts_to<ask::guest_socket>,
                     caf::reacts_to<ask::stop>, caf::reacts_to<set_limits>, caf::reacts_to<sandbox_stuck>,
                     caf::reacts_to<sandbox_down>, caf::reacts_to<branch_resumed>, caf::reacts_to<branch_ended>>;

template <class F>
continuation make_continuation(F body) {
  struct work final : continuation::work {
    explicit work(F what) : what_(std::move(what)) {}
    void run() override { what_(); }
    F what_;
  };
  return {std::make_shared<work>(std::move(body))};
}

// Runs `body` in the actor. Callable from any thread.
template <class Handle, class F>
void run_in(const Handle& actor, F body) {
  caf::anon_send(actor, make_continuation(std::move(body)));
}

// The same, after `delay`.
template <class Handle, class F>
void run_in_after(const Handle& actor, std::chrono::milliseconds delay, F body) {
  caf::delayed_anon_send(actor, delay, make_continuation(std::move(body)));
}

}  // namespace coppice

#define COPPICE_LOCAL_MESSAGE(type) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(coppice::type)
COPPICE_LOCAL_MESSAGE(continuation)
COPPICE_LOCAL_MESSAGE(finished)
COPPICE_LOCAL_MESSAGE(reserve_snapshot)
COPPICE_LOCAL_MESSAGE(reservation)
COPPICE_LOCAL_MESSAGE(publish_snapshot)
COPPICE_LOCAL_MESSAGE(published_snapshot)
COPPICE_LOCAL_MESSAGE(pinned_snapshot)
COPPICE_LOCAL_MESSAGE(drop_staging)
COPPICE_LOCAL_MESSAGE(compose_image)
COPPICE_LOCAL_MESSAGE(pin_snapshot)
COPPICE_LOCAL_MESSAGE(remove_snapshot)
COPPICE_LOCAL_MESSAGE(find_snapshot)
COPPICE_LOCAL_MESSAGE(verify_snapshot)
COPPICE_LOCAL_MESSAGE(verify_report)
COPPICE_LOCAL_MESSAGE(prearm_memory)
COPPICE_LOCAL_MESSAGE(rearm_memory)
COPPICE_LOCAL_MESSAGE(copy_memory)
COPPICE_LOCAL_MESSAGE(copied_memory)
COPPICE_LOCAL_MESSAGE(abort_copy)
COPPICE_LOCAL_MESSAGE(start_sandbox)
COPPICE_LOCAL_MESSAGE(sandbox_started)
COPPICE_LOCAL_MESSAGE(take_turn)
COPPICE_LOCAL_MESSAGE(turn_grant)
COPPICE_LOCAL_MESSAGE(give_back)
COPPICE_LOCAL_MESSAGE(give_back_pause)
COPPICE_LOCAL_MESSAGE(begin_copy)
COPPICE_LOCAL_MESSAGE(memory_session)
COPPICE_LOCAL_MESSAGE(probe_vm)
COPPICE_LOCAL_MESSAGE(pause_vm)
COPPICE_LOCAL_MESSAGE(snapshot_vm)
COPPICE_LOCAL_MESSAGE(resume_vm)
COPPICE_LOCAL_MESSAGE(set_diff_base)
COPPICE_LOCAL_MESSAGE(stop_sandbox)
COPPICE_LOCAL_MESSAGE(get_memory)
COPPICE_LOCAL_MESSAGE(guest_ram)
COPPICE_LOCAL_MESSAGE(get_network)
COPPICE_LOCAL_MESSAGE(guest_network)
COPPICE_LOCAL_MESSAGE(begin_branch)
COPPICE_LOCAL_MESSAGE(abort_branch)
COPPICE_LOCAL_MESSAGE(ask::snapshots)
COPPICE_LOCAL_MESSAGE(ask::snapshot)
COPPICE_LOCAL_MESSAGE(ask::create_snapshot)
COPPICE_LOCAL_MESSAGE(ask::delete_snapshot)
COPPICE_LOCAL_MESSAGE(ask::verify)
COPPICE_LOCAL_MESSAGE(ask::sandboxes)
COPPICE_LOCAL_MESSAGE(ask::sandbox)
COPPICE_LOCAL_MESSAGE(ask::create_sandboxes)
COPPICE_LOCAL_MESSAGE(ask::delete_sandbox)
COPPICE_LOCAL_MESSAGE(ask::branch)
COPPICE_LOCAL_MESSAGE(ask::journal)
COPPICE_LOCAL_MESSAGE(ask::guest_socket)
COPPICE_LOCAL_MESSAGE(ask::stop)
COPPICE_LOCAL_MESSAGE(set_limits)
COPPICE_LOCAL_MESSAGE(sandbox_stuck)
COPPICE_LOCAL_MESSAGE(sandbox_down)
COPPICE_LOCAL_MESSAGE(branch_resumed)
COPPICE_LOCAL_MESSAGE(branch_ended)
#undef COPPICE_LOCAL_MESSAGE
