// The network of one VM: a network namespace with a tap inside, as forkd's clients know it.
//
// Children of one snapshot all wake up with the same MAC and IP address, and the vmstate names the tap by the name it
// had when the snapshot was taken. In a namespace of its own each child finds that name, and its address collides with
// none.
#pragma once

#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice {

// The same in every namespace; what forkd's host scripts set up, so that guests made for it find their host.
inline constexpr const char* guest_tap = "tap0";
inline constexpr const char* host_side_ip = "10.42.0.1";  // of the tap, /24
inline constexpr const char* guest_ip = "10.42.0.2";
inline constexpr std::uint16_t guest_agent_port = 8888;
inline constexpr const char* guest_mac = "06:00:0a:2a:00:02";  // its last four bytes are guest_ip
// What a Linux kernel must be told to configure its eth0 so (Documentation/admin-guide/nfs/nfsroot.rst).
inline constexpr const char* guest_ip_boot_arg = "ip=10.42.0.2::10.42.0.1:255.255.255.0::eth0:off";

// Has no name, so nothing is left of it when this object and the processes inside are gone, however they end;
// /proc/PID/ns/net of a process inside is the way in. Thread-safe.
class network_namespace {
 public:
  // With lo and `guest_tap` up. Errors: unsupported (names the privilege that is missing), io.
  static result<network_namespace> create();

  int fd() const noexcept { return fd_.get(); }  // for setns(2)
  // A TCP socket that lives inside, not connected, non-blocking. Errors: io.
  result<unique_fd> tcp_socket() const;

 private:
  explicit network_namespace(unique_fd fd) : fd_(std::move(fd)) {}
  unique_fd fd_;
};

}  // namespace coppice
