// HTTP/1.1 over a unix socket, as Firecracker's micro_http speaks it: kept connections, one request at a time.
#pragma once

#include <filesystem>

#include "base/result.hpp"
#include "reference_vmm/api_handler.hpp"
#include "reference_vmm/fault_injection.hpp"

namespace coppice::reference {

// Serves until the process ends; returns only on a failure to listen. Requests of all connections queue behind each
// other, each is answered before the next begins. Errors: already_exists (something is at `socket`), io.
result<void> serve_api(const std::filesystem::path& socket, api_handler& handler, fault_plan& faults);

}  // namespace coppice::reference
