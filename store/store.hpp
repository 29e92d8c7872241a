// Snapshots on disk: <root>/snapshots/<tag>/{vmstate, memory.bin, manifest.json}.
// A snapshot is there completely, durable, or not at all. Every call may block on the disk: actors call from a worker
// pool.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/branch_stats.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// What the manifest says of one snapshot.
struct snapshot_record {
  std::string tag;
  std::filesystem::path directory;  // <root>/snapshots/<tag>
  std::uint64_t created_at_unix = 0;
  std::string branched_from;        // sandbox id; empty for a base snapshot
  std::string parent_tag;           // the snapshot that sandbox came from; empty for a base snapshot
  std::string backing = "shared";   // the parent's RAM backing: shared or file
  std::string vmm;                  // "Firecracker 1.12.1": what wrote the vmstate
  std::optional<branch_mode> mode;  // none for a base snapshot
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  std::vector<std::string> read_only_drives;  // host paths that a restore needs
  bool network = false;                       // the VM has a network interface, whose tap a restore needs
  std::optional<pause_breakdown> pause;
  std::optional<copy_summary> copy;
  std::vector<std::uint64_t> memory_chunk_checksums;
  std::uint64_t vmstate_checksum = 0;  // filled in by publish()
  std::uint64_t vmstate_bytes = 0;     // filled in by publish()

  std::filesystem::path vmstate_path() const { return directory / "vmstate"; }
  std::filesystem::path memory_path() const { return directory / "memory.bin"; }
};

// A snapshot in the making: space is reserved, nothing is visible. The destructor removes every trace unless published.
class staged_snapshot {
 public:
  virtual ~staged_snapshot() = default;
  virtual const std::string& tag() const noexcept = 0;
  virtual std::filesystem::path directory() const = 0;    // <root>/snapshots/.staging-<tag>-<number>
  virtual std::filesystem::path memory_path() const = 0;  // in directory(), exists with its full size, all hole
  virtual std::filesystem::path vmstate_path()
      const = 0;  // on tmpfs, so that the VMM's fsync in the pause costs nothing
};

struct verify_result {
  std::uint64_t chunks = 0;
  std::vector<std::uint64_t> bad_chunks;  // indexes whose checksum differs
  bool vmstate_ok = false;
  bool ok() const noexcept { return vmstate_ok && bad_chunks.empty(); }
};

struct store_usage {
  std::uint64_t free_bytes = 0;  // of the file system, minus what is reserved
  std::uint64_t reserved_bytes = 0;
  std::uint64_t size_bytes = 0;  // of the file system
  std::uint64_t snapshots = 0;
};

struct store_options {
  std::filesystem::path root;
  std::uint64_t keep_free_bytes = 64 * 1024 * 1024;  // reserve() leaves at least this much
};

// One root's snapshots. Thread-safe. At most one store (in any process) is open on a root.
class snapshot_store {
 public:
  // Opens or creates the root: takes its lock, removes staging that a crash left (see removed_at_open), reads the
  // manifests. Errors: conflict (another daemon holds the root: names its pid), io (no permission: names the path),
  // no_space.
  static result<std::unique_ptr<snapshot_store>> open(const store_options& options);
  virtual ~snapshot_store() = default;

  // The folder that vmstates are staged in: on tmpfs, if there is one.
  virtual const std::filesystem::path& vmstate_folder() const noexcept = 0;
  virtual const std::vector<std::string>& removed_at_open() const noexcept = 0;  // what was cleaned up, for the log
  virtual const std::vector<std::string>& unreadable_at_open()
      const noexcept = 0;  // snapshots whose manifest is damaged: left alone, not listed

  // Reserves the name and the space for a snapshot with `memory_bytes` of RAM. Errors: invalid_argument (bad tag),
  // already_exists (tag ready or in the making), no_space (says what is free and what is needed), io.
  virtual result<std::unique_ptr<staged_snapshot>> reserve(const std::string& tag, std::uint64_t memory_bytes) = 0;

  // Moves the vmstate in, makes all durable, writes the manifest, renames. Afterwards the snapshot is listed. On an
  // error the staging is removed. Errors: no_space, io, corrupt (a file is missing or has not its size).
  virtual result<snapshot_record> publish(std::unique_ptr<staged_snapshot> staged, snapshot_record record) = 0;

  virtual std::vector<snapshot_record> list() const = 0;                   // ordered by created_at_unix, then tag
  virtual result<snapshot_record> find(const std::string& tag) const = 0;  // Errors: not_found

  // A pinned snapshot can't be removed. Lasts until the last returned handle is gone. Errors: not_found.
  virtual result<std::shared_ptr<const snapshot_record>> pin(const std::string& tag) = 0;

  // Errors: not_found, conflict (pinned, or still in the making), io.
  virtual result<void> remove(const std::string& tag) = 0;

  // Reads everything and compares the checksums. Errors: not_found, io.
  virtual result<verify_result> verify(const std::string& tag) const = 0;

  virtual store_usage usage() const = 0;
};

// Writes to `output` (same size, all hole) the image `base` with the data extents of `diff` laid over it, sparse where
// both are holes or zero; the work of a diff branch after the resume. Errors: no_space, io.
result<void> compose_diff_image(int base, int diff, int output, std::uint64_t size);

}  // namespace coppice
