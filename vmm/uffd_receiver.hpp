// The receiving end of the uffd handshake: one unix socket, one message, one userfaultfd.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/guest_memory.hpp"
#include "base/result.hpp"
#include "vmm/event_loop.hpp"

namespace coppice {

// Parses the handshake's text, [{"base_host_virt_addr","size","offset","page_size"|"page_size_kib"}...]; both names of
// the page size hold bytes (Firecracker, src/vmm/src/persist.rs, GuestRegionUffdMapping). Errors: corrupt.
result<std::vector<memory_region>> parse_uffd_regions(std::string_view text);

// Waits for handovers on a loop. Thread-safe. The destructor fails what still waits with `cancelled`.
class uffd_receiver {
 public:
  using callback = std::function<void(result<uffd_handover>)>;

  explicit uffd_receiver(std::shared_ptr<event_loop> loop);
  ~uffd_receiver();
  uffd_receiver(const uffd_receiver&) = delete;
  uffd_receiver& operator=(const uffd_receiver&) = delete;

  // As vmm_host::receive_uffd.
  void receive(const std::filesystem::path& socket, std::chrono::milliseconds deadline, callback done);

 private:
  class handshake;
  class registry;

  std::shared_ptr<event_loop> loop_;
  std::shared_ptr<registry> registry_;
};

}  // namespace coppice
