// What the actors stand on: the parts below, and the limits. Shared by all actors of a daemon; outlives them.
#pragma once

#include <filesystem>
#include <memory>

#include "actors/event_hub.hpp"
#include "actors/steps.hpp"
#include "base/worker_pool.hpp"
#include "copy_engine/copy_engine.hpp"
#include "metrics/metrics.hpp"
#include "store/store.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

struct services {
  vmm_host& vmm;
  copy_engine& engine;
  snapshot_store& store;
  metrics& meters;
  std::shared_ptr<executor> disk_pool;
  std::filesystem::path run_dir;  // a folder per VM below it: sockets and logs
  branch_deadlines deadlines;
  daemon_limits limits;                   // at the start: the fleet hears of new ones by set_limits
  std::shared_ptr<event_loop> loop = {};  // whose thread runs the actors
  // For what goes through whole images and takes seconds, so that it holds up nothing of a branch: loading RAM,
  // verifying, composing.
  std::shared_ptr<executor> image_pool = disk_pool;
  std::shared_ptr<const memory_cgroups> cgroups = {};                 // none: no VM can have a memory limit
  std::shared_ptr<event_hub> events = std::make_shared<event_hub>();  // the fleet tells it of each change
};
using services_ptr = std::shared_ptr<const services>;

}  // namespace coppice
