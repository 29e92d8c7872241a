#include "reference_vmm/vcpu.hpp"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

#include "reference_vmm/boot.hpp"

namespace coppice::reference {
namespace {

// The kvm_run of the vCPU that this thread runs. The signal handler sets immediate_exit in it: so a kick that comes
// just before KVM_RUN is not lost (Documentation/virt/kvm/api.rst, 5. The kvm_run structure).
thread_local kvm_run* volatile current_run = nullptr;

void on_kick(int) {
  if (kvm_run* const run = current_run) run->immediate_exit = 1;
}

int kick_signal() {
  return SIGRTMIN;
}

void install_kick() {
  static const bool once = [] {
    struct sigaction action {};
    action.sa_handler = on_kick;
    ::sigaction(kick_signal(), &action, nullptr);
    return true;
  }();
  (void)once;
}

[[noreturn]] void end_process(const char* why, int code) {
  std::fprintf(stdout, "coppice-vmm: %s\n", why);
  std::fflush(stdout);
  ::_exit(code);
}

}  // namespace

result<std::unique_ptr<vcpu>> vcpu::create(const vcpu_environment& environment, unsigned index, unsigned count) {
  install_kick();
  unique_fd fd(::ioctl(environment.vm, KVM_CREATE_VCPU, static_cast<unsigned long>(index)));
  if (!fd) return errno_error("KVM_CREATE_VCPU");
  auto run = mapping::shared(fd.get(), environment.run_size, PROT_READ | PROT_WRITE);
  if (!run) return std::move(run).error();
  std::unique_ptr<vcpu> made(new vcpu(environment, index, std::move(fd), std::move(*run)));
  COPPICE_TRY(made->set_cpuid(count));
  return made;
}

vcpu::vcpu(const vcpu_environment& environment, unsigned index, unique_fd fd, mapping run)
    : environment_(environment),
      index_(index),
      fd_(std::move(fd)),
      run_map_(std::move(run)),
      // The kernel lays a kvm_run at the start of the mapping.
      run_(reinterpret_cast<kvm_run*>(run_map_.data())),
      thread_([this] { thread_main(); }) {
  native_ = thread_.native_handle();
}

vcpu::~vcpu() {
  {
    const std::lock_guard lock(mutex_);
    wish_ = wish::end;
    changed_.notify_all();
  }
  ::pthread_kill(native_, kick_signal());
  thread_.join();
}

void vcpu::resume() {
  const std::lock_guard lock(mutex_);
  wish_ = wish::run;
  running_ = true;
  changed_.notify_all();
}

void vcpu::request_pause() {
  const std::lock_guard lock(mutex_);
  wish_ = wish::pause;
  ::pthread_kill(native_, kick_signal());
}

void vcpu::wait_paused() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !running_; });
}

void vcpu::thread_main() {
  current_run = run_;
  std::unique_lock lock(mutex_);
  while (wish_ != wish::end) {
    if (wish_ == wish::pause) {
      running_ = false;
      changed_.notify_all();
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    run_until_kicked();
    lock.lock();
  }
}

void vcpu::run_until_kicked() {
  // Every kick changes wish_ before it sets immediate_exit. So clearing it before looking at wish_ loses none.
  while (run_->immediate_exit = 0, std::atomic_signal_fence(std::memory_order_seq_cst), wish_.load() == wish::run) {
    if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) {
      handle_exit();
    } else if (errno != EINTR && errno != EAGAIN) {
      std::perror("coppice-vmm: KVM_RUN");
      end_process("a vCPU cannot run", 1);
    }
  }
  finish_pending_io();
}

// An exit for I/O is completed by the next KVM_RUN only; without it the saved registers would still be before the
// instruction (Documentation/virt/kvm/api.rst, KVM_RUN).
void vcpu::finish_pending_io() {
  for (;;) {
    run_->immediate_exit = 1;
    if (::ioctl(fd_.get(), KVM_RUN, 0) != 0) break;  // EINTR
    handle_exit();
  }
  run_->immediate_exit = 0;
}

void vcpu::handle_exit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      handle_port_io();
      break;
    case KVM_EXIT_MMIO:  // no device is memory-mapped: reads see all ones
      if (run_->mmio.is_write == 0) std::memset(run_->mmio.data, 0xff, sizeof run_->mmio.data);
      break;
    case KVM_EXIT_HLT:
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      break;
    case KVM_EXIT_SHUTDOWN:
      end_process("the guest shut down (triple fault)", 0);
    case KVM_EXIT_SYSTEM_EVENT:
      end_process("the guest ended", 0);
    case KVM_EXIT_INTERNAL_ERROR:
      std::fprintf(stdout, "coppice-vmm: KVM internal error, suberror %u\n", run_->internal.suberror);
      end_process("KVM cannot run this guest", 1);
    default:
      std::fprintf(stdout, "coppice-vmm: exit reason %u\n", run_->exit_reason);
      end_process("unexpected exit of a vCPU", 1);
  }
}

void vcpu::handle_port_io() {
  auto* const data = reinterpret_cast<std::uint8_t*>(run_) + run_->io.data_offset;
  const std::size_t length = std::size_t{run_->io.size} * run_->io.count;
  const std::uint16_t port = run_->io.port;
  if (run_->io.direction == KVM_EXIT_IO_OUT) {
    if (port == 0x64 && data[0] == 0xfe) end_process("the guest reset (i8042)", 0);
    if (port == 0x3f8) {
      for (std::size_t i = 0; i < length; ++i) environment_.serial(data[i]);
    }
    return;
  }
  // Line status of the serial port: transmitter empty. i8042 status: nothing to read.
  const int value = port == 0x3fd ? 0x60 : port >= 0x3f8 && port <= 0x3ff ? 0 : port == 0x64 ? 0 : 0xff;
  std::memset(data, value, length);
}

}  // namespace coppice::reference
