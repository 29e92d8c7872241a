// What the daemon can do, as the API sees it: a plain interface that hides the actors.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/branch_stats.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "base/vmm_capabilities.hpp"

namespace coppice {

enum class snapshot_status { writing, ready, failed };
std::string_view to_string(snapshot_status status) noexcept;

// One step of a branch. Times are since the branch was begun.
struct step_time {
  std::string_view step;  // a name in steps.hpp
  std::chrono::microseconds began{};
  std::chrono::microseconds took{};
};

struct snapshot_info {
  std::string tag;
  std::filesystem::path dir;
  std::uint64_t created_at_unix = 0;
  std::optional<std::string> branched_from;  // sandbox id
  std::optional<std::string> parent_tag;
  snapshot_status status = snapshot_status::ready;
  std::string failure;                    // why, if failed
  std::optional<errc> failure_code = {};  // of what kind, if failed
  bool bootable = false;  // sandboxes can be started from it: it is ready, and of a VMM whose snapshots this one loads
  std::optional<branch_mode> mode;
  std::string note;  // e.g. why a diff branch wrote a full image; mostly empty
  std::string vmm;
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  bool network = false;  // the VM has a network interface: children need a namespace each
  std::optional<pause_breakdown> pause;
  std::optional<copy_summary> copy;
  std::vector<step_time> timeline;               // of a branch of this daemon's life
  std::optional<std::uint64_t> memory_checksum;  // image_checksum of the chunks
  std::uint64_t copied_pages = 0;                // progress while writing
  std::uint64_t total_pages = 0;
  // Lineage, told by snapshot() only. No snapshot needs another one: its image is whole.
  std::vector<std::string> ancestors;   // root first, as far as they still exist
  std::vector<std::string> dependents;  // whose parent_tag is this one
};

enum class sandbox_state { starting, running, branching, stuck };
std::string_view to_string(sandbox_state state) noexcept;

struct sandbox_info {
  std::string id;
  std::string snapshot_tag;
  std::uint64_t created_at_unix = 0;
  std::int64_t pid = 0;
  bool has_branched = false;
  std::uint64_t branch_count = 0;
  std::optional<std::chrono::microseconds> last_pause;  // of its latest branch that resumed it
  sandbox_state state = sandbox_state::running;
  std::string backing;  // "shared": can be branched live; "file"
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  std::optional<std::uint64_t> memory_limit_mib;
  // With a network namespace of its own only.
  std::optional<std::string> netns;       // its path, e.g. for nsenter(1): /proc/PID/ns/net
  std::optional<std::string> guest_addr;  // IP:PORT inside it where the guest's agent listens
};

struct drive_request {
  std::filesystem::path path;
  bool read_only = true;
};

struct create_snapshot_request {
  std::string tag;
  std::filesystem::path kernel;
  std::optional<std::filesystem::path> initrd = {};
  std::uint64_t memory_bytes = 256 * mib;
  unsigned vcpus = 1;
  std::string boot_args;
  std::optional<drive_request> rootfs;
  bool network = false;                       // with a network interface (vmm/network_namespace.hpp)
  std::chrono::milliseconds boot_time{1000};  // how long the guest runs before its snapshot is taken
  std::string request_id = {};                // of the API, for log and events; empty: none
};

struct create_sandboxes_request {
  std::string snapshot_tag;
  unsigned n = 1;
  bool network_namespaces = false;     // one for each
  std::uint64_t memory_limit_mib = 0;  // that each may take, RAM and VMM together; 0: no limit
  std::string request_id = {};         // of the API, for log and events; empty: none
};

struct branch_request {
  std::optional<std::string> tag;  // generated if absent: "branch-<sandbox>-<count>"
  branch_mode mode = branch_mode::live;
  bool wait = true;             // false: complete when the parent is resumed, with status writing
  std::string request_id = {};  // of the API, for log and events; empty: none
  std::optional<std::string> parent_tag =
      {};  // what the sandbox must come from (else invalid_argument); absent: whatever
};

struct verify_report {
  std::string tag;
  bool ok = false;
  std::uint64_t chunks = 0;
  std::uint64_t bad_chunks = 0;
  bool vmstate_ok = false;
  bool is_journal = false;          // the image is of the journal guest, so the oracle was applied
  std::uint64_t journal_pages = 0;  // pages that the oracle checked
  std::uint64_t journal_steps = 0;  // step of the image, lanes added up
  std::uint64_t future_pages = 0;
  std::uint64_t lost_pages = 0;
  std::uint64_t torn_pages = 0;
  std::uint64_t gaps = 0;  // restores after which memory and registers disagreed
};

// What the journal guest of a sandbox reports of itself, read from its memory while it runs.
struct journal_status {
  std::uint64_t steps = 0;  // lanes added up
  std::uint64_t gaps = 0;
  std::chrono::nanoseconds longest_stall{};  // between two steps, since the last reset (a reset: see journal())
};

// A way to the agent that may listen inside a guest.
struct guest_socket {
  unique_fd fd;    // TCP, of the sandbox's network namespace, not connected, non-blocking
  std::string ip;  // where the agent listens
  std::uint16_t port = 0;
};

// How much there may be at once. What would be more is refused with `unavailable`.
struct daemon_limits {
  unsigned branches_per_parent = 4;  // in flight, until ready
  unsigned branches = 16;
  unsigned sandboxes = 1000;
  unsigned parallel_starts = 8;  // the others wait
};

enum class event_kind {
  sandbox_created,
  sandbox_running,  // started, or no longer stuck
  sandbox_stuck,    // paused, its resume being retried
  sandbox_deleted,
  sandbox_died,
  branch_started,
  branch_resumed,  // the parent runs again, the copy goes on
  branch_ready,
  branch_failed,
  snapshot_created,  // of a kernel; a branch tells branch_ready
  snapshot_failed,   // the same, not made
  snapshot_deleted,
};
// "sandbox.created"
std::string_view to_string(event_kind kind) noexcept;

// A change of a sandbox or a branch.
struct plane_event {
  event_kind kind = event_kind::sandbox_created;
  std::string sandbox;          // its id; empty if none is concerned
  std::string tag;              // of the snapshot; empty if none is concerned
  std::string reason;           // of a failure or a death
  std::string request_id = {};  // of the API's request that began it; empty if there is none
};

// Thread-safe. Every call returns at once; its completion is called exactly once, on any thread, and must not block.
// All have finite deadlines. After stop(), calls complete with `unavailable`.
class control_plane {
 public:
  template <class T>
  using completion = std::function<void(result<T>)>;

  virtual ~control_plane() = default;

  virtual const vmm_capabilities& vmm() const noexcept = 0;

  virtual void list_snapshots(completion<std::vector<snapshot_info>> done) = 0;  // ready, writing and failed ones
  virtual void snapshot(const std::string& tag, completion<snapshot_info> done) = 0;
  virtual void create_snapshot(create_snapshot_request request, completion<snapshot_info> done) = 0;
  // One that is in the making is cancelled: undone before this completes, and its request completes with `cancelled`.
  // `cascade`: with all snapshots that descend from it, or none of them if one is in use or in the making (conflict).
  virtual void delete_snapshot(const std::string& tag, bool cascade, completion<void> done) = 0;
  virtual void verify_snapshot(const std::string& tag, completion<verify_report> done) = 0;

  virtual void list_sandboxes(completion<std::vector<sandbox_info>> done) = 0;
  virtual void sandbox(const std::string& id, completion<sandbox_info> done) = 0;
  virtual void create_sandboxes(create_sandboxes_request request,
                                completion<std::vector<sandbox_info>> done) = 0;  // all or none
  virtual void delete_sandbox(const std::string& id, completion<void> done) = 0;
  virtual void branch(const std::string& id, branch_request request, completion<snapshot_info> done) = 0;
  // `reset`: forget the longest stall after reading it. Errors: not_found, unsupported (no journal guest, or not shared
  // memory).
  virtual void journal(const std::string& id, bool reset, completion<journal_status> done) = 0;

  // Errors: not_found, unsupported (the sandbox has no address), io.
  virtual void open_guest_socket(const std::string& id, completion<guest_socket> done) = 0;

  // Calls `listener` for each change from now on, in their order, until the control plane's end. On any thread, one at
  // a time; it must not block, nor call this object.
  virtual void subscribe(std::function<void(const plane_event&)> listener) = 0;

  // The text of /metrics (Prometheus exposition format 0.0.4), up to date.
  virtual std::string metrics_text() = 0;

  // From now on, also for copies that are under way.
  virtual void set_copy_rates(const copy_rates& rates) = 0;

  // From now on. What there is goes on, also where it is more than that.
  virtual void set_limits(const daemon_limits& limits) = 0;

  // Undoes what is in flight, ends every VM, removes staging. Returns when done, at most 4 s later.
  virtual void stop() = 0;
};

}  // namespace coppice
