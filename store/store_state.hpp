// What a store and the snapshots it is making share.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/units.hpp"
#include "store/root_lock.hpp"
#include "store/store.hpp"
#include "store/store_internal.hpp"

namespace coppice {

// Added to every reservation for vmstate, manifest and metadata: a vmstate is some 10 KiB a vCPU and device.
inline constexpr std::uint64_t vmstate_allowance = 8 * mib;

inline constexpr std::string_view staging_prefix = ".staging-";
inline constexpr std::string_view removed_prefix = ".removed-";

struct ready_snapshot {
  snapshot_record record;
  std::weak_ptr<const snapshot_record> pin;  // alive while anybody holds a handle
};

// Kept alive by the store and by each staged snapshot, so the root stays locked until the last trace is cleaned up.
// `mutex` guards the tables; everything else is constant after open_store(). No lock is held during I/O that may take
// long.
struct store_state {
  std::filesystem::path root;       // canonical
  std::filesystem::path snapshots;  // <root>/snapshots
  std::filesystem::path vmstates;   // this root's folder on tmpfs; empty if there is no tmpfs: then in the staging
  std::uint64_t keep_free_bytes = 0;
  store_seams seams;
  root_lock lock;

  mutable std::mutex mutex;
  std::map<std::string, ready_snapshot> ready;  // by tag
  struct reservation {
    std::uint64_t bytes = 0;
    std::filesystem::path directory;
  };
  std::map<std::string, reservation> staging;  // by tag
  std::uint64_t reservations = 0;              // numbers them: a late VMM must not write into its successor's files
  std::set<std::string> blocked;               // tags of unreadable snapshots, and of those being removed
  std::uint64_t removals = 0;                  // makes the names of removed snapshots unique

  store_state() = default;
  store_state(const store_state&) = delete;
  store_state& operator=(const store_state&) = delete;
  ~store_state();  // removes the tmpfs folder

  std::filesystem::path directory_of(const std::string& tag) const { return snapshots / tag; }
  // `name`: the tag and the reservation's number
  std::filesystem::path staging_of(const std::string& name) const {
    return snapshots / (std::string(staging_prefix) + name);
  }
  std::filesystem::path staged_vmstate_of(const std::string& name) const {
    return vmstates.empty() ? staging_of(name) / "vmstate" : vmstates / (name + ".vmstate");
  }

  // Bytes reserved that are not written yet: what is written is missing from the free space already.
  // REQUIRES: mutex held
  std::uint64_t outstanding_bytes() const;
};

// The reservation of one name and its space.
class disk_staging final : public staged_snapshot {
 public:
  // REQUIRES: the tag stands in state->staging
  disk_staging(std::shared_ptr<store_state> state, std::string tag, std::string name, std::uint64_t memory_bytes)
      : state_(std::move(state)), tag_(std::move(tag)), name_(std::move(name)), memory_bytes_(memory_bytes) {}
  disk_staging(const disk_staging&) = delete;
  disk_staging& operator=(const disk_staging&) = delete;
  ~disk_staging() override;

  const std::string& tag() const noexcept override { return tag_; }
  std::filesystem::path directory() const override { return state_->staging_of(name_); }
  std::filesystem::path memory_path() const override { return directory() / "memory.bin"; }
  std::filesystem::path vmstate_path() const override { return state_->staged_vmstate_of(name_); }

  std::uint64_t memory_bytes() const noexcept { return memory_bytes_; }
  const std::shared_ptr<store_state>& state() const noexcept { return state_; }

  // Makes the folder and the image, all hole.
  result<void> create_files();
  // Everything of publish() up to the renamed, durable folder; completes `record`.
  result<void> publish_files(snapshot_record& record);

 private:
  result<void> complete_record(snapshot_record& record) const;
  result<void> move_vmstate_in(snapshot_record& record) const;

  std::shared_ptr<store_state> state_;
  std::string tag_;
  std::string name_;  // of its files
  std::uint64_t memory_bytes_;
};

// The root's file system. Errors: io.
struct disk_space {
  std::uint64_t free_bytes = 0;  // for an ordinary user
  std::uint64_t size_bytes = 0;
};
result<disk_space> space_of(const std::filesystem::path& root);

}  // namespace coppice
