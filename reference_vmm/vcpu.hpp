// One vCPU of a KVM machine: its file descriptor, and the thread that runs it.
#pragma once

#include <linux/kvm.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "reference_vmm/state_file.hpp"

namespace coppice::reference {

// What a whole VM's vCPUs have in common. Outlives them.
struct vcpu_environment {
  int kvm = -1;
  int vm = -1;
  std::size_t run_size = 0;                  // of kvm_run's mapping
  std::size_t xsave_size = 0;                // 0: the fixed-size ioctl
  std::vector<std::uint32_t> msrs;           // to save
  std::vector<kvm_cpuid_entry2> cpuid;       // as KVM supports it
  std::function<void(std::uint8_t)> serial;  // a byte the guest printed; called by vCPU threads
};

// Created paused. All but the thread's own loop is for one controlling thread; save and restore REQUIRE: paused.
class vcpu {
 public:
  // Errors: io.
  static result<std::unique_ptr<vcpu>> create(const vcpu_environment& environment, unsigned index, unsigned count);
  vcpu(const vcpu&) = delete;
  vcpu& operator=(const vcpu&) = delete;
  // Ends the thread.
  ~vcpu();

  // Registers for the entry of a kernel. Errors: io.
  result<void> prepare_boot(std::uint64_t entry);
  result<void> save(state_sections& into) const;
  // Errors: corrupt, io.
  result<void> restore(const state_sections& from);

  void resume();
  // Two halves, so that all vCPUs stop at once. After wait_paused the vCPU has left KVM_RUN with no I/O half done.
  void request_pause();
  void wait_paused();

 private:
  enum class wish { pause, run, end };

  vcpu(const vcpu_environment& environment, unsigned index, unique_fd fd, mapping run);
  void thread_main();
  void run_until_kicked();
  void finish_pending_io();
  void handle_exit();
  void handle_port_io();
  std::string section(const char* name) const;
  result<void> set_cpuid(unsigned count);
  result<void> set_up_local_interrupts();
  result<void> save_msrs(state_sections& into) const;
  result<void> restore_msrs(const state_sections& from);
  result<void> save_xsave(state_sections& into) const;
  result<void> restore_xsave(const state_sections& from);

  const vcpu_environment& environment_;
  unsigned index_;
  unique_fd fd_;
  mapping run_map_;
  kvm_run* run_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<wish> wish_{wish::pause};  // written under mutex_
  bool running_ = false;                 // from resume() until the thread has seen a pause; under mutex_
  pthread_t native_{};
  std::thread thread_;
};

}  // namespace coppice::reference
