#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <compare>
#include <cstdio>

#include "base/free_page_reporting.hpp"
#include "base/guest_memory.hpp"
#include "base/units.hpp"
#include "copy_engine/copy_engine.hpp"
#include "copy_engine/write_protect.hpp"
#include "doctor/doctor_checks.hpp"
#include "reference_vmm/memory.hpp"
#include "reference_vmm/uffd_handover.hpp"
#include "vmm/network_namespace.hpp"

namespace coppice::doctor {
namespace {

constexpr int known_kvm_version = 12;  // Documentation/virt/kvm/api.rst: it will never change

constexpr std::string_view live_branches_advice =
    "without it no live branches: Linux 5.19 or later, root or CAP_SYS_PTRACE (or sysctl "
    "vm.unprivileged_userfaultfd=1), and no seccomp filter that forbids it";

struct version {
  int major = 0;
  int minor = 0;
  auto operator<=>(const version&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes it for one
};
constexpr version starts_vms{5, 11};      // close_range(2) with CLOSE_RANGE_CLOEXEC
constexpr version protects_shmem{5, 19};  // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
constexpr version has_uffd_device{6, 1};  // /dev/userfaultfd

struct uffd_feature {
  std::uint64_t bit;
  const char* name;
  bool needed;
};
// Documentation/admin-guide/mm/userfaultfd.rst. The last one is newer than some headers.
constexpr uffd_feature uffd_features[] = {
    {UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write-protect faults", true},
    {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write-protection of shared memory", true},
    {UFFD_FEATURE_MISSING_SHMEM, "missing pages of shared memory", false},
    {UFFD_FEATURE_EVENT_REMOVE, "events of removal", false},
    {1ULL << 13, "protection of untouched pages", false},
};

}  // namespace

finding check_kernel(const doctor_options&) {
  utsname name{};
  ::uname(&name);
  version running;
  std::sscanf(name.release, "%d.%d", &running.major, &running.minor);  // NOLINT: two numbers, or they stay 0
  const std::string found = std::string(name.sysname) + " " + name.release + ", " + name.machine;
  if (std::string_view(name.machine) != "x86_64") return failed(found, "use an x86_64 host: no other is supported");
  if (running < starts_vms) return failed(found, "use Linux 6.1 or later: VMs can't be started before 5.11");
  if (running < protects_shmem)
    return warning(found, "live branches need Linux 5.19 (write-protection of shared memory); full and diff work");
  if (running < has_uffd_device)
    return warning(found,
                   "the packaged service needs Linux 6.1 (/dev/userfaultfd); run coppiced as root, or set "
                   "sysctl vm.unprivileged_userfaultfd=1");
  return ok(found);
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
  const std::string advice(live_branches_advice);
  if (!uffd.ok()) return failed(uffd.error().message(), advice);
  const auto address = reinterpret_cast<std::uintptr_t>(memory->data());
  for (const bool protect : {true, false}) {
    const auto done = set_write_protection(uffd->get(), address, memory->size(), protect);
    if (!done.ok()) return failed(done.error().message(), advice);
  }
  return ok("write-protects shared memory");
}

// Of the kernel, whatever this user may do with them.
finding check_userfaultfd_features(const doctor_options&) {
  const unique_fd uffd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  if (!uffd) return failed(errno_error("userfaultfd").message(), std::string(live_branches_advice));
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(uffd.get(), UFFDIO_API, &api) != 0)
    return failed(errno_error("UFFDIO_API").message(), std::string(live_branches_advice));
  std::string present;
  std::string absent;
  bool enough = true;
  for (const auto& feature : uffd_features) {
    const bool is_there = (api.features & feature.bit) != 0;
    std::string& list = is_there ? present : absent;
    list += (list.empty() ? "" : ", ") + std::string(feature.name);
    enough = enough && (is_there || !feature.needed);
  }
  const std::string found = present + (absent.empty() ? "" : "; not there: " + absent);
  return enough ? ok(found) : failed(found, std::string(live_branches_advice));
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

// As the daemon makes one: it is gone again at once.
finding check_network(const doctor_options&) {
  const auto made = network_namespace::create();
  if (made.ok()) return ok("network namespaces with a tap");
  return warning(made.error().message(), "only sandboxes with a network need it: see docs/networking.md");
}

finding check_free_pages(const doctor_options&) {
  const auto order = free_page_reporting_order();
  if (!order) return ok("stay with this machine");
  return warning(
      "go back to this VM's host by its balloon, in blocks of " + std::to_string((page_size << *order) / kib) +
          " KiB or more",
      "after much was freed (an image removed, a VM stopped) every guest may stall for 10 ms or longer, now and "
      "then: have the host switch free page reporting off, or try to write 11 to "
      "/sys/module/page_reporting/parameters/page_reporting_order");
}

}  // namespace coppice::doctor
