#include "reference_vmm/kvm_vm.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>

#include "base/file.hpp"
#include "base/units.hpp"
#include "reference_vmm/boot.hpp"
#include "reference_vmm/kvm_abi.hpp"
#include "reference_vmm/vcpu.hpp"

namespace coppice::reference {
namespace {

class kvm_machine final : public machine {
 public:
  explicit kvm_machine(guest_ram ram) : ram_(std::move(ram)) {}
  ~kvm_machine() override { vcpus_.clear(); }

  result<void> open(unsigned vcpus, bool track_dirty);

  result<void> boot(const machine_config& config) override;
  result<void> restore(const state_sections& state) override;
  void resume() override;
  void pause() override;
  result<state_sections> save() override;
  result<void> collect_dirty() override;
  guest_ram& memory() noexcept override { return ram_; }

 private:
  result<void> open_system();
  result<void> create_chips();
  result<void> map_memory(bool track_dirty);
  result<void> learn_msrs();
  result<void> learn_cpuid();

  guest_ram ram_;
  unique_fd kvm_;
  unique_fd vm_;
  vcpu_environment environment_;
  std::vector<std::unique_ptr<vcpu>> vcpus_;
};

// The console goes into a log that must not fill the disk, whatever the guest says.
void print_serial(std::uint8_t byte) {
  constexpr std::uint64_t most = 4 * mib;
  static std::atomic<std::uint64_t> printed{0};
  const std::uint64_t before = printed.fetch_add(1, std::memory_order_relaxed);
  if (before == most) std::puts("\ncoppice-vmm: the console has said 4 MiB: what follows is not printed");
  if (before >= most) return;
  std::putchar(byte);
  if (byte == '\n') std::fflush(stdout);
}

result<void> kvm_machine::open(unsigned vcpus, bool track_dirty) {
  COPPICE_TRY(open_system());
  COPPICE_TRY(create_chips());
  COPPICE_TRY(map_memory(track_dirty));
  COPPICE_TRY(learn_msrs());
  COPPICE_TRY(learn_cpuid());
  environment_.serial = print_serial;
  for (unsigned i = 0; i < vcpus; ++i) {
    auto made = vcpu::create(environment_, i, vcpus);
    if (!made) return std::move(made).error();
    vcpus_.push_back(std::move(*made));
  }
  return {};
}

result<void> kvm_machine::open_system() {
  kvm_ = unique_fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm_) return errno_error("/dev/kvm");
  if (::ioctl(kvm_.get(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    return error{errc::unsupported, 0, "/dev/kvm speaks another API version"};
  }
  vm_ = unique_fd(::ioctl(kvm_.get(), KVM_CREATE_VM, 0));
  if (!vm_) return errno_error("KVM_CREATE_VM");
  environment_.kvm = kvm_.get();
  environment_.vm = vm_.get();
  const int run_size = ::ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_size < 0) return errno_error("KVM_GET_VCPU_MMAP_SIZE");
  environment_.run_size = static_cast<std::size_t>(run_size);
  const int xsave = ::ioctl(vm_.get(), KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  environment_.xsave_size = xsave > 0 ? static_cast<std::size_t>(xsave) : 0;
  return {};
}

result<void> kvm_machine::create_chips() {
  if (::ioctl(vm_.get(), KVM_SET_TSS_ADDR, 0xfffbd000UL) != 0) return errno_error("KVM_SET_TSS_ADDR");
  if (::ioctl(vm_.get(), KVM_CREATE_IRQCHIP, 0) != 0) return errno_error("KVM_CREATE_IRQCHIP");
  kvm_pit_config pit{};
  pit.flags = KVM_PIT_SPEAKER_DUMMY;
  if (::ioctl(vm_.get(), KVM_CREATE_PIT2, &pit) != 0) return errno_error("KVM_CREATE_PIT2");
  return {};
}

result<void> kvm_machine::map_memory(bool track_dirty) {
  std::uint32_t slot = 0;
  for (const ram_region& region : ram_.regions()) {
    kvm_userspace_memory_region request{};
    request.slot = slot++;
    request.flags = track_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    request.guest_phys_addr = region.guest_address;
    request.memory_size = region.bytes.size();
    request.userspace_addr = reinterpret_cast<std::uintptr_t>(region.bytes.data());
    if (::ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &request) != 0) {
      return errno_error("KVM_SET_USER_MEMORY_REGION");
    }
  }
  return {};
}

result<void> kvm_machine::learn_msrs() {
  std::vector<std::uint32_t> list(1);                        // a count, then that many indices
  ::ioctl(kvm_.get(), kvm_get_msr_index_list, list.data());  // E2BIG, and the count
  list.resize(1 + list[0]);
  if (::ioctl(kvm_.get(), kvm_get_msr_index_list, list.data()) != 0) return errno_error("KVM_GET_MSR_INDEX_LIST");
  environment_.msrs.assign(list.begin() + 1, list.end());
  return {};
}

result<void> kvm_machine::learn_cpuid() {
  constexpr std::size_t most = 256;
  kvm_list<kvm_cpuid_entry2> list(most);
  if (::ioctl(kvm_.get(), kvm_get_supported_cpuid, list.data()) != 0) return errno_error("KVM_GET_SUPPORTED_CPUID");
  environment_.cpuid.assign(list.entries(), list.entries() + list.count());
  return {};
}

result<void> kvm_machine::boot(const machine_config& config) {
  auto entry = load_guest(ram_, config.kernel, config.boot_args, config.vcpus, config.initrd);
  if (!entry) return std::move(entry).error();
  for (const auto& each : vcpus_) COPPICE_TRY(each->prepare_boot(*entry));
  return {};
}

void kvm_machine::resume() {
  for (const auto& each : vcpus_) each->resume();
}

void kvm_machine::pause() {
  for (const auto& each : vcpus_) each->request_pause();
  for (const auto& each : vcpus_) each->wait_paused();
}

result<state_sections> kvm_machine::save() {
  state_sections state;
  for (const auto& each : vcpus_) COPPICE_TRY(each->save(state));
  for (std::uint32_t chip = 0; chip < 3; ++chip) {
    kvm_irqchip content{};
    content.chip_id = chip;
    if (::ioctl(vm_.get(), KVM_GET_IRQCHIP, &content) != 0) return errno_error("KVM_GET_IRQCHIP");
    state.set_struct("irqchip" + std::to_string(chip), content);
  }
  kvm_pit_state2 pit{};
  if (::ioctl(vm_.get(), KVM_GET_PIT2, &pit) != 0) return errno_error("KVM_GET_PIT2");
  state.set_struct("pit", pit);
  kvm_clock_data clock{};
  if (::ioctl(vm_.get(), KVM_GET_CLOCK, &clock) != 0) return errno_error("KVM_GET_CLOCK");
  clock.flags = 0;  // guest time goes on from here, wherever and whenever that will be
  state.set_struct("clock", clock);
  return state;
}

result<void> kvm_machine::restore(const state_sections& state) {
  for (std::uint32_t chip = 0; chip < 3; ++chip) {
    auto content = state.get_struct<kvm_irqchip>("irqchip" + std::to_string(chip));
    if (!content) return std::move(content).error();
    if (::ioctl(vm_.get(), KVM_SET_IRQCHIP, &*content) != 0) return errno_error("KVM_SET_IRQCHIP");
  }
  auto pit = state.get_struct<kvm_pit_state2>("pit");
  if (!pit) return std::move(pit).error();
  if (::ioctl(vm_.get(), KVM_SET_PIT2, &*pit) != 0) return errno_error("KVM_SET_PIT2");
  auto clock = state.get_struct<kvm_clock_data>("clock");
  if (!clock) return std::move(clock).error();
  if (::ioctl(vm_.get(), KVM_SET_CLOCK, &*clock) != 0) return errno_error("KVM_SET_CLOCK");
  for (const auto& each : vcpus_) COPPICE_TRY(each->restore(state));
  return {};
}

result<void> kvm_machine::collect_dirty() {
  std::uint32_t slot = 0;
  for (const ram_region& region : ram_.regions()) {
    const std::uint64_t pages = region.bytes.size() / page_size;
    std::vector<std::uint64_t> log((pages + 63) / 64);
    kvm_dirty_log request{};
    request.slot = slot++;
    request.dirty_bitmap = log.data();
    if (::ioctl(vm_.get(), KVM_GET_DIRTY_LOG, &request) != 0) return errno_error("KVM_GET_DIRTY_LOG");
    for (std::uint64_t page = 0; page < pages; ++page) {
      if (((log[page / 64] >> (page % 64)) & 1U) != 0) ram_.dirty().set(region.file_offset / page_size + page);
    }
  }
  return {};
}

}  // namespace

bool kvm_available() noexcept {
  return ::access("/dev/kvm", R_OK | W_OK) == 0;
}

result<std::unique_ptr<machine>> make_kvm_machine(guest_ram ram, unsigned vcpus, bool track_dirty) {
  auto made = std::make_unique<kvm_machine>(std::move(ram));
  COPPICE_TRY(made->open(vcpus, track_dirty));
  return std::unique_ptr<machine>(std::move(made));
}

}  // namespace coppice::reference
