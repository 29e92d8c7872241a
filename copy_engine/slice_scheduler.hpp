// Long changes of protection (the pre-arm, the lifting of what is copied), cut into slices that a helper makes, one at
// a time, while faults go on being served. Why that is safe:
// - a page is marked as touched before it is lifted: whether the pre-arm protects it just before or just after, the
//   re-arm protects it once more;
// - a piece is lifted only when no epoch needs any page of it, and a new epoch's pre-arm begins after that piece.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/worker_pool.hpp"
#include "copy_engine/attached_vm.hpp"
#include "copy_engine/bounce_pool.hpp"

namespace coppice {

// Fault thread only. What is referred to outlives it, and what it has posted to the helper.
class slice_scheduler {
 public:
  using task = std::function<void()>;

  // `post_back` takes tasks from the helper to the fault thread.
  slice_scheduler(const attached_vms& vms, bounce_pool& pool, executor& helper, std::function<void(task)> post_back)
      : vms_(vms), pool_(pool), helper_(helper), post_back_(std::move(post_back)) {}

  // Begins the next slice, unless there is none to do or one is under way. VMs take turns; of pre-arms the one that is
  // due first has the turn. To be called after whatever may have made a slice possible.
  void begin_next();
  // Gives bounce memory back to the system, slice by slice, once no VM is being branched.
  void trim_pool() { trim_offset_ = 0; }

 private:
  // The pre-arm that is due first, where each has time in proportion to its RAM. REQUIRES: there is one.
  std::shared_ptr<memory_epoch> next_to_prearm() const;
  void prearm_slice(const std::shared_ptr<memory_epoch>& epoch);
  void prearm_touched(const std::shared_ptr<memory_epoch>& epoch);
  void lift_slice(const std::shared_ptr<attached_vm>& vm, const memory_region& piece);
  void trim_slice();
  // By the helper; `done` runs on this thread.
  void change_protection(const attached_vm& vm, std::vector<memory_region> pieces, bool protect,
                         std::function<void(result<void>)> done);

  const attached_vms& vms_;
  bounce_pool& pool_;
  executor& helper_;
  const std::function<void(task)> post_back_;
  int last_sliced_ = -1;  // the uffd of the VM whose turn it was
  bool slice_under_way_ = false;
  std::optional<std::uint64_t> trim_offset_;  // of the bounce memory that is still to be given back
};

}  // namespace coppice
