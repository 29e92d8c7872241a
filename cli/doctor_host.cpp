#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <cstdio>
#include <fstream>

#include "base/guest_memory.hpp"
#include "base/units.hpp"
#include "cli/doctor_checks.hpp"
#include "copy_engine/copy_engine.hpp"
#include "copy_engine/write_protect.hpp"
#include "vmm/reference/memory.hpp"
#include "vmm/reference/uffd_handover.hpp"

namespace coppice::doctor {
namespace {

constexpr int known_kvm_version = 12;           // Documentation/virt/kvm/api.rst: it will never change
constexpr rlim_t files_for_a_full_host = 8192;  // 1,000 connections, 1,000 VMs of a few descriptors each
constexpr rlim_t fewest_files = 1024;
constexpr std::uint64_t usual_vm = 256 * mib;
constexpr std::uint64_t usual_bounce_memory = 256 * mib;

// Of /proc/meminfo; 0 if it is not there.
std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    std::uint64_t kilobytes = 0;
    file >> kilobytes;
    if (name == "MemAvailable:") return kilobytes * kib;
    file.ignore(100, '\n');
  }
  return 0;
}

}  // namespace

finding check_kernel(const doctor_options&) {
  utsname name{};
  ::uname(&name);
  int major = 0;
  int minor = 0;
  std::sscanf(name.release, "%d.%d", &major, &minor);  // NOLINT: two numbers, or they stay 0
  const std::string found = std::string(name.sysname) + " " + name.release + ", " + name.machine;
  if (std::string_view(name.machine) != "x86_64") return failed(found, "use an x86_64 host: no other is supported");
  if (major > 5 || (major == 5 && minor >= 19)) return ok(found);
  return warning(found, "live branches need Linux 5.19 (write-protection of shared memory); full and diff may work");
}

finding check_kvm(const doctor_options&) {
  const unique_fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm && errno == ENOENT) {
    return failed("no /dev/kvm", "load kvm_intel or kvm_amd; in a VM, have nested virtualisation switched on");
  }
  if (!kvm) return failed(errno_error("/dev/kvm").message(), "run as root, or join the group kvm");
  const int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
  const std::string found = "/dev/kvm, API version " + std::to_string(version);
  return version == known_kvm_version ? ok(found) : failed(found, "use a kernel with KVM API version 12");
}

// As coppice-vmm registers its RAM, and as the copy engine protects it.
finding check_userfaultfd(const doctor_options&) {
  auto memory = guest_memory::create("coppice-doctor", mib);
  if (!memory.ok()) return failed(memory.error().message(), "free memory");
  const reference::ram_region ram{0, 0, {memory->data(), memory->size()}};
  const auto uffd = reference::create_wp_uffd({&ram, 1});
  const std::string advice =
      "without it no live branches: Linux 5.19 or later, root or CAP_SYS_PTRACE (or sysctl "
      "vm.unprivileged_userfaultfd=1), and no seccomp filter that forbids it";
  if (!uffd.ok()) return failed(uffd.error().message(), advice);
  const auto address = reinterpret_cast<std::uintptr_t>(memory->data());
  for (const bool protect : {true, false}) {
    const auto done = set_write_protection(uffd->get(), address, memory->size(), protect);
    if (!done.ok()) return failed(done.error().message(), advice);
  }
  return ok("write-protects shared memory");
}

finding check_copy_engine(const doctor_options&) {
  copy_engine_options small;
  small.bounce_bytes = mib;
  const auto engine = create_copy_engine(small);
  if (!engine.ok()) {
    return failed(engine.error().message(), "allow io_uring: sysctl kernel.io_uring_disabled=0, no seccomp filter");
  }
  return ok("starts, io_uring usable");
}

finding check_pidfd(const doctor_options&) {
  const unique_fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (self) return ok("processes can be watched");
  return failed(errno_error("pidfd_open").message(), "Linux 5.3 or later, and no seccomp filter that forbids it");
}

finding check_open_files(const doctor_options&) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string found =
      "at most " + (limit.rlim_max == RLIM_INFINITY ? "any" : std::to_string(limit.rlim_max)) + " open files a process";
  const std::string advice = "raise the hard limit (LimitNOFILE= of the unit, ulimit -Hn) to 65536";
  if (limit.rlim_max < fewest_files) return failed(found, advice);
  return limit.rlim_max < files_for_a_full_host ? warning(found, advice) : ok(found);
}

finding check_memory(const doctor_options&) {
  const std::uint64_t available = available_memory();
  const std::string found = format_bytes(available) + " available";
  if (available < usual_vm) return failed(found, "a VM of 256 MiB does not fit: free memory");
  if (available >= usual_vm + usual_bounce_memory) return ok(found);
  return warning(found, "a VM of 256 MiB and the daemon's --bounce-memory (256M) may not fit both: lower that");
}

}  // namespace coppice::doctor
