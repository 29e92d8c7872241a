// Copies a running guest's memory, as it is at one instant, into an image file.
//
// The protocol of one branch: begin() -> prearm -> (the VM is paused, its vmstate saved) -> rearm -> (resumed) -> copy
// started. From the rearm on, every page that the guest is about to overwrite is saved first. See docs/copy-engine.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/branch_stats.hpp"
#include "base/guest_memory.hpp"
#include "base/result.hpp"

namespace coppice {

struct copy_result {
  copy_summary summary;
  std::vector<std::uint64_t> chunk_checksums;  // base/image_digest.hpp
};

struct copy_progress {
  std::uint64_t settled_pages = 0;  // pages that need no more work: written, zero or hole
  std::uint64_t total_pages = 0;
  bool waits_for_limit = false;  // nothing more may be written now: no reason to think that the disk is stuck
};

// One branch's copy. Owned by its copy_stream actor. Thread-safe; calls in another order than the protocol's are
// `internal` errors. Completions are called exactly once, on an engine thread: they must not block. Destroying it
// aborts and waits until the engine is done with it.
class copy_session {
 public:
  using completion = std::function<void(result<void>)>;
  using copy_completion = std::function<void(result<copy_result>)>;

  virtual ~copy_session() = default;

  // Write-protects all of RAM, in slices, while the guest runs; pages it writes meanwhile are remembered as touched.
  virtual void prearm(completion done) = 0;
  // Protects the touched pages again; on success the epoch has begun. REQUIRES: prearm done, the VM paused.
  virtual void rearm(completion done) = 0;
  // Streams the epoch's memory into `image` (owned by the session from now on; the caller has set its size). `done`
  // when every page is written (not yet fsynced) or on the first error, protection dropped. REQUIRES: rearm done.
  // Errors: no_space, io, unavailable (the disk is so slow that the guest had to wait for it), cancelled.
  virtual void copy(unique_fd image, copy_completion done) = 0;
  // Gives up: drops the protection first, then stops writing; a pending completion gets `cancelled`. `done` when the
  // engine touches neither RAM nor image for this session any more. Legal at any time, any number of times.
  virtual void abort(std::function<void()> done) = 0;

  virtual copy_progress progress() const noexcept = 0;
};

// A VM's memory known to the engine. Destroying it closes the uffd, with which the kernel lifts all protection;
// sessions that are left fail. Thread-safe.
class protected_memory {
 public:
  virtual ~protected_memory() = default;
  // Errors: unavailable (too many overlapping branches of this VM).
  virtual result<std::unique_ptr<copy_session>> begin() = 0;
};

// What the engine did since it started, for metrics. Counters only grow.
struct copy_engine_stats {
  std::uint64_t faults = 0;
  std::uint64_t captured_pages = 0;
  std::uint64_t bulk_pages = 0;
  std::uint64_t written_bytes = 0;
  std::uint64_t deferred_faults = 0;                // faults that had to wait because the bounce pool was empty
  std::uint64_t saved_ahead_pages = 0;              // saved before the disk could take them, captured ones not counted
  std::uint64_t bounce_bytes_used = 0;              // now, not a counter
  std::vector<std::uint64_t> fault_service_counts;  // per bucket of fault_service_bounds, last: above all
  double fault_service_seconds = 0;                 // sum
};

// Upper bounds of the fault service time buckets, in seconds.
const std::vector<double>& fault_service_bounds();

// The seam that actor tests replace by fakes; create_copy_engine() makes the real one.
class copy_engine {
 public:
  virtual ~copy_engine() = default;
  // Takes over the uffd of a running VM whose RAM is `memory`. Errors: invalid_argument (regions outside of the
  // memory), io.
  virtual result<std::unique_ptr<protected_memory>> attach(uffd_handover handover,
                                                           std::shared_ptr<guest_memory> memory) = 0;
  virtual copy_engine_stats stats() const = 0;
  // From now on, also for copies that are under way. Thread-safe.
  virtual void set_rates(const copy_rates& rates) = 0;
};

struct copy_engine_options {
  // Bound of the memory for captured pages and those saved ahead, all branches together.
  std::uint64_t bounce_bytes = 256 * mib;
  unsigned max_epochs_per_vm = 8;
  copy_rates rates = {};
  // How long a vCPU may wait for bounce memory. Then the disk is too slow for this branch, and the branch is given up.
  std::chrono::milliseconds longest_deferral{200};
  // For so long a small hot set, which comes first, is left to be copied: faults don't make the copy hurry before.
  std::chrono::milliseconds hot_set_time{20};
};

// Errors: unsupported (no userfaultfd or io_uring here), io.
result<std::unique_ptr<copy_engine>> create_copy_engine(const copy_engine_options& options);

}  // namespace coppice
