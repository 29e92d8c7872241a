// Finds out what a VMM can do by asking one.
#pragma once

#include <filesystem>

#include "base/result.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice {

// Starts one VMM with its socket and log below `dir`, asks, and ends it. Nothing is loaded or booted. Blocks up to a
// few seconds; must not run on the event loop. Errors: those of vmm_host::start; deadline_exceeded or io if the process
// never listened or ended, with the end of its log.
result<vmm_capabilities> probe_capabilities(vmm_host& host, const std::filesystem::path& dir);

}  // namespace coppice
