// Every snapshot of a host, whatever its state: one look, one truth.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control_plane/control_plane.hpp"
#include "copy_engine/copy_engine.hpp"
#include "store/store.hpp"

namespace coppice {

// A tag stands here once, as writing, ready or failed, from the admission of its request to its deletion; the way from
// one state to the next is one call. What is ready is what the store has published: whoever publishes and removes there
// tells it here. Owned by the fleet; not thread-safe.
class snapshot_registry {
 public:
  // `loader`: the VMM that sandboxes will be started with.
  explicit snapshot_registry(vmm_capabilities loader) : loader_(std::move(loader)) {}

  // ---- Changes

  // In the making. A failed one of the same tag is forgotten. REQUIRES: check_free(info.tag)
  void begin(snapshot_info info);
  // Its parent runs again. REQUIRES: the tag is writing
  void resumed(const std::string& tag, const pause_breakdown& pause, const std::string& note,
               std::weak_ptr<copy_session> session);
  // It is published. `note`, `timeline`: what its record doesn't say.
  void ready(const snapshot_record& record, std::string note = {}, std::vector<step_time> timeline = {});
  // It is kept as a failed one, until it is removed, its tag is used again, or a thousand others failed later.
  // REQUIRES: the tag is writing
  void failed(const std::string& tag, const error& why, std::vector<step_time> timeline);
  // It is gone. No effect if it isn't there.
  void remove(const std::string& tag) { entries_.erase(tag); }

  // ---- Looks

  // Errors: already_exists: it is in the making, or ready.
  result<void> check_free(const std::string& tag) const;
  // Success if it is ready. Errors: not_found; conflict, which names its state.
  result<void> check_ready(const std::string& tag) const;
  // Success if sandboxes can be started from it. Errors: as check_ready; conflict, which names the VMM that made it and
  // the one there is.
  result<void> check_bootable(const std::string& tag) const;
  // Lineage aside. Errors: not_found.
  result<snapshot_info> find(const std::string& tag) const;
  // The same with its lineage.
  result<snapshot_info> find_with_lineage(const std::string& tag) const;
  // Lineage aside; by age, then tag.
  std::vector<snapshot_info> all() const;
  // Itself, and all that descend from it, children after their parents. Errors: not_found.
  result<std::vector<std::string>> family(const std::string& tag) const;

 private:
  struct entry {
    snapshot_info info;
    std::weak_ptr<copy_session> session;  // of a copy that is under way
  };

  static snapshot_info present(const entry& each);
  static bool is_child_of(const snapshot_info& child, const snapshot_info& parent);
  const entry* parent_of(const snapshot_info& child) const;
  std::vector<std::string> children_of(const snapshot_info& parent) const;
  void forget_oldest_failure();

  const vmm_capabilities loader_;
  std::map<std::string, entry> entries_;
};

}  // namespace coppice
