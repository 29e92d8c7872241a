// Real VMM processes for tests: started as the daemon starts them, driven by the daemon's own requests, one call at a
// time.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/guest_memory.hpp"
#include "journal_guest/journal_oracle.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/api_requests.hpp"
#include "vmm/local_vmm_host.hpp"

namespace coppice::reference {

inline constexpr auto patience = std::chrono::seconds(30);  // for what must come: a deadline, not a wait

// Polls until `holds` or `patience` is over; what it was at last.
template <class Condition>
bool eventually(Condition holds) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return holds();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Which VMM a test runs on.
struct vmm_choice {
  std::string name;
  const char* variable = nullptr;      // environment variable that names the binary; nullptr: coppice-vmm
  std::vector<std::string> arguments;  // passed to it always
  bool needs_kvm = true;
  bool is_coppice_vmm() const { return variable == nullptr; }
};
void PrintTo(const vmm_choice& choice, std::ostream* out);

// coppice-vmm on KVM and on threads, and the patched Firecracker that COPPICE_FIRECRACKER names.
std::vector<vmm_choice> all_vmms();
vmm_choice on_kvm();
vmm_choice on_threads();
// The binary, or why it cannot be run here (then the test is to be skipped).
struct found_vmm {
  std::filesystem::path binary;
  std::string why_not;
};
found_vmm find_vmm(const vmm_choice& choice);

// One VMM process.
class test_vmm {
 public:
  // Starts it for uffd/wp, with the socket and log `<dir>/<name>.*` and `memory` as its stdin; fails the test if that
  // fails.
  test_vmm(vmm_host& host, const std::filesystem::path& dir, const std::string& name,
           const guest_memory* memory = nullptr);

  result<api_reply> call(const api_request& request, std::chrono::milliseconds deadline = patience);
  // The same, failing the test if the call fails.
  void must(const api_request& request);
  // Fails the test unless the call is refused with a message that has `why` in it.
  void refuses(const api_request& request, const std::string& why);
  std::string log() const;
  bool logs(const std::string& text) const;  // eventually
  // How the process ended; code -1 if it has not after `patience`.
  exit_status exited();
  bool runs() const;
  pid_t pid() const { return vmm_->pid(); }
  running_vmm& vmm() { return *vmm_; }
  const std::filesystem::path& socket() const { return socket_; }

 private:
  std::filesystem::path socket_, log_;
  std::shared_ptr<std::promise<exit_status>> exit_ = std::make_shared<std::promise<exit_status>>();
  std::future<exit_status> ended_ = exit_->get_future();
  std::unique_ptr<running_vmm> vmm_;
};

// Where a VM's memory and state are.
struct snapshot {
  std::filesystem::path vmstate, memory;
};

struct boot_options {
  unsigned vcpus = 2;
  std::uint64_t memory_mib = 64;
  std::string arguments = "journal.pages=1024";
};

class vmm_test : public ::testing::Test {
 protected:
  // Skips the test if `choice` cannot run here.
  void use(const vmm_choice& choice, std::vector<std::string> more_arguments = {});
  std::unique_ptr<test_vmm> start(const std::string& name) {
    return std::make_unique<test_vmm>(*host_, dir_.path(), name);
  }
  // One that finds `memory` at memory_path.
  std::unique_ptr<test_vmm> start_on(const guest_memory& memory, const std::string& name) {
    return std::make_unique<test_vmm>(*host_, dir_.path(), name, &memory);
  }
  static constexpr const char* memory_path = vmm_memory_path;
  // Boots the journal, with dirty tracking.
  std::unique_ptr<test_vmm> boot(const std::string& name, const boot_options& options = {});
  // A VM that runs on `memory` itself, restored from a snapshot just booted, some steps on: memory is in sight.
  std::unique_ptr<test_vmm> boot_on_memfd(const std::string& name, const boot_options& options = {});
  snapshot paths(const std::string& name) const { return {dir_.path() / (name + ".vmstate"), dir_.path() / name}; }
  std::span<const std::byte> memory() const { return {memory_->data(), memory_->size()}; }
  std::uint64_t steps(std::span<const std::byte> of) const;
  // The journal in `of` goes on by `count` steps, every lane taking part, and finds no gap.
  void expect_advance(std::span<const std::byte> of, std::uint64_t count = 200);
  // The file is a journal of one instant.
  journal_report expect_perfect(const std::filesystem::path& image, std::uint64_t lanes);
  // A copy of the image in a new memfd.
  std::shared_ptr<guest_memory> load(const std::filesystem::path& image, std::uint64_t size);

  vmm_choice choice_;
  temp_dir dir_;
  std::unique_ptr<vmm_host> host_;
  std::shared_ptr<guest_memory> memory_;  // of boot_on_memfd
};

// The test on each VMM that there is.
class each_vmm_test : public vmm_test, public ::testing::WithParamInterface<vmm_choice> {
 protected:
  void SetUp() override { use(GetParam()); }
};
std::string name_of(const ::testing::TestParamInfo<vmm_choice>& info);

}  // namespace coppice::reference
