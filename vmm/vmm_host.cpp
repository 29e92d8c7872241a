#include "vmm/vmm_host.hpp"

#include <cstring>

namespace coppice {

std::string exit_status::describe() const {
  const std::string limit = over_memory_limit ? ", over its memory limit" : "";
  if (signal == 0) return "exit code " + std::to_string(code) + limit;
  const char* name = ::sigdescr_np(signal);
  return "signal " + std::to_string(signal) + (name != nullptr ? " (" + std::string(name) + ")" : "") + limit;
}

}  // namespace coppice
