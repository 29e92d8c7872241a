// The store's seams for tests: where it may be made to crash or fail. Not for use outside of store/ and its tests.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <memory>

#include "store/store.hpp"

namespace coppice {

// The points between two operations on disk, in their order.
enum class store_step {
  staging_made,      // reserve: the folder is there
  image_made,        // reserve: memory.bin too
  publish_begun,     // publish: nothing done yet
  vmstate_copied,    // publish: from tmpfs, not yet durable
  data_synced,       // publish: vmstate and memory.bin are durable
  manifest_written,  // publish: it too
  staging_synced,    // publish: and the folder
  renamed,           // publish: visible, not yet durable as such
  published,         // publish: all done
  unlisted,          // remove: renamed out of the way, content still there
  removed,           // remove: all done
};

struct store_seams {
  std::filesystem::path tmpfs = "/dev/shm";  // where vmstates are staged, if it is one
  // Called at each step, on the calling thread, no lock held. An error is treated as if the step had failed.
  std::function<result<void>(store_step)> at_step = [](store_step) { return result<void>(); };
};

// snapshot_store::open, with seams.
result<std::unique_ptr<snapshot_store>> open_store(const store_options& options, store_seams seams);

}  // namespace coppice
