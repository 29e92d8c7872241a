#include "vmm/network_namespace.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <thread>

namespace coppice {
namespace {

// A thread can't get back into the daemon's namespace without privileges that it may have lost meanwhile: what happens
// inside happens in a thread that ends with it.
template <class F>
auto in_thread_of_its_own(F work) {
  std::optional<decltype(work())> outcome;
  std::thread([&] { outcome.emplace(work()); }).join();
  return *std::move(outcome);
}

error no_privilege(const char* what, int reason) {
  return {
      errc::unsupported, reason,
      std::string(what) +
          ": a network namespace for a sandbox needs CAP_SYS_ADMIN and CAP_NET_ADMIN; run coppiced as root, or grant "
          "it both (systemd: AmbientCapabilities=)"};
}

error failed(const char* what) {
  if (errno == EPERM || errno == EACCES) return no_privilege(what, errno);
  return errno_error(what);
}

ifreq request_for(const char* interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
  return request;
}

void set_address(sockaddr& field, const char* ip) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, ip, &address.sin_addr);
  std::memcpy(&field, &address, sizeof address);  // netdevice(7): the field holds a sockaddr_in
}

result<void> bring_up(int control, const char* interface) {
  auto request = request_for(interface);
  if (::ioctl(control, SIOCGIFFLAGS, &request) != 0) return failed("read a network interface's flags");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (::ioctl(control, SIOCSIFFLAGS, &request) != 0) return failed("bring a network interface up");
  return {};
}

// A tap that stays when its descriptor is closed. It has no owner, so whoever is in the namespace may open it: the VMM.
result<void> add_tap() {
  const unique_fd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun && errno == ENOENT)
    return error{errc::unsupported, errno, "open /dev/net/tun: load the kernel's tun module (modprobe tun)"};
  if (!tun) return failed("open /dev/net/tun");
  auto request = request_for(guest_tap);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0) return failed("create a tap");
  if (::ioctl(tun.get(), TUNSETPERSIST, 1UL) != 0) return failed("keep a tap");
  return {};
}

result<void> configure(int control) {
  COPPICE_TRY(bring_up(control, "lo"));
  COPPICE_TRY(add_tap());
  auto request = request_for(guest_tap);
  set_address(request.ifr_addr, host_side_ip);
  if (::ioctl(control, SIOCSIFADDR, &request) != 0) return failed("give a tap its address");
  set_address(request.ifr_netmask, "255.255.255.0");
  if (::ioctl(control, SIOCSIFNETMASK, &request) != 0) return failed("give a tap its netmask");
  return bring_up(control, guest_tap);
}

// In the calling thread, which is inside afterwards.
result<unique_fd> enter_new_namespace() {
  if (::unshare(CLONE_NEWNET) != 0) return failed("create a network namespace");
  const unique_fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!control) return errno_error("open a socket in a network namespace");
  COPPICE_TRY(configure(control.get()));
  unique_fd inside(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!inside) return errno_error("open a network namespace");
  return inside;
}

}  // namespace

result<network_namespace> network_namespace::create() {
  auto made = in_thread_of_its_own(enter_new_namespace);
  if (!made) return std::move(made).error();
  return network_namespace(*std::move(made));
}

result<unique_fd> network_namespace::tcp_socket() const {
  return in_thread_of_its_own([this]() -> result<unique_fd> {
    if (::setns(fd_.get(), CLONE_NEWNET) != 0) return failed("enter a network namespace");
    unique_fd made(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!made) return errno_error("open a socket in a network namespace");
    return made;
  });
}

}  // namespace coppice
