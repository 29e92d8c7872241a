// Boot, pause, snapshot, restore: on coppice-vmm, on its threads, and on a real Firecracker.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/file.hpp"
#include "tests/reference_vmm/call_table.hpp"
#include "tests/reference_vmm/vmm_rig.hpp"
#include "vmm/unix_socket.hpp"

namespace coppice::reference {
namespace {

using ::testing::HasSubstr;

std::uint64_t bytes_on_disk(const std::filesystem::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

bool same_content(const std::filesystem::path& a, const std::filesystem::path& b) {
  return *read_text_file(a) == *read_text_file(b);
}

struct snapshot_test : each_vmm_test {
  // A snapshot of a VM that was booted on memory in sight, and has run on.
  snapshot snapshot_of_running(unsigned vcpus) {
    auto parent = boot_on_memfd("parent", {.vcpus = vcpus});
    parent->must(api_requests::pause());
    const snapshot taken = paths("full");
    parent->must(api_requests::snapshot_full(taken.vmstate, taken.memory));
    taken_steps_ = expect_perfect(taken.memory, vcpus).steps;
    EXPECT_EQ(taken_steps_, steps(memory()));
    return taken;
  }
  std::uint64_t taken_steps_ = 0;
};

TEST_P(snapshot_test, a_booted_guest_of_one_to_four_vcpus_is_of_one_instant_in_every_full_snapshot) {
  for (unsigned vcpus = 1; vcpus <= 4; ++vcpus) {
    SCOPED_TRACE(std::to_string(vcpus) + " vCPUs");
    auto vm = boot("vm" + std::to_string(vcpus), {.vcpus = vcpus});
    std::uint64_t before = 0;
    for (int i = 0; i < 3; ++i) {
      const snapshot taken = paths("full");
      const bool went_on = eventually([&] {
        vm->must(api_requests::resume());
        vm->must(api_requests::pause());
        vm->must(api_requests::snapshot_full(taken.vmstate, taken.memory));
        const auto file = open_file(taken.memory, O_RDONLY);
        const auto checked = check_journal_image(file->get(), 64 * mib);
        return checked && checked->is_journal && checked->steps > before;
      });
      EXPECT_TRUE(went_on) << vm->log();
      before = expect_perfect(taken.memory, vcpus).steps;
    }
  }
}

TEST_P(snapshot_test, a_child_on_a_private_file_goes_on_without_a_gap_and_leaves_the_file_alone) {
  const snapshot taken = snapshot_of_running(2);
  const std::string content = *read_text_file(taken.memory);
  auto child = start("child");
  child->must(api_requests::load_snapshot(taken.vmstate, taken.memory, false, false, true));
  const snapshot later = paths("later");
  EXPECT_TRUE(eventually([&] {
    child->must(api_requests::pause());
    child->must(api_requests::snapshot_full(later.vmstate, later.memory));
    child->must(api_requests::resume());
    return expect_perfect(later.memory, 2).steps > taken_steps_ + 100;
  }));
  EXPECT_TRUE(*read_text_file(taken.memory) == content);
}

TEST_P(snapshot_test, children_of_one_to_four_vcpus_on_shared_memory_go_on_without_a_gap_on_every_vcpu) {
  for (unsigned vcpus = 1; vcpus <= 4; ++vcpus) {
    SCOPED_TRACE(std::to_string(vcpus) + " vCPUs");
    const snapshot taken = snapshot_of_running(vcpus);
    for (int i = 0; i < 2; ++i) {
      const auto own = load(taken.memory, 64 * mib);
      auto child = start_on(*own, "child");
      child->must(api_requests::load_snapshot(taken.vmstate, memory_path, true, false, false));
      const std::span<const std::byte> seen(own->data(), own->size());
      EXPECT_EQ(steps(seen), taken_steps_) << "paused until it is resumed";
      child->must(api_requests::resume());
      expect_advance(seen);
    }
  }
}

TEST_P(snapshot_test, shared_memory_may_be_a_file_on_disk) {
  const snapshot taken = snapshot_of_running(1);
  auto child = start("child");
  child->must(api_requests::load_snapshot(taken.vmstate, taken.memory, true, false, true));
  auto file = open_file(taken.memory, O_RDONLY);
  const auto seen = mapping::shared(file->get(), 64 * mib, PROT_READ);
  ASSERT_TRUE(seen);
  expect_advance(seen->bytes());
  child->must(api_requests::pause());
  expect_perfect(taken.memory, 1);
  // Write-protection exists for memory only, and this is said.
  struct statfs where {};
  ASSERT_EQ(::statfs(dir_.path().c_str(), &where), 0);
  if (where.f_type == TMPFS_MAGIC) return;
  const auto listening = listen_unix(dir_.path() / "listener");
  child->refuses(api_requests::uffd_wp(dir_.path() / "listener"), GetParam().is_coppice_vmm() ? "memfd" : "register");
}

TEST_P(snapshot_test, a_diff_merged_into_the_file_of_before_is_what_a_full_snapshot_would_be) {
  auto vm = boot_on_memfd("vm", {.arguments = "journal.pages=1024 journal.pattern=zipf"});
  const snapshot merged = paths("merged"), full = paths("full"), alone = paths("alone");
  vm->must(api_requests::pause());
  vm->must(api_requests::snapshot_full(merged.vmstate, merged.memory));
  for (int i = 0; i < 3; ++i) {
    vm->must(api_requests::resume());
    expect_advance(memory(), 100);
    vm->must(api_requests::pause());
    vm->must(api_requests::snapshot_diff(merged.vmstate, merged.memory));
    vm->must(api_requests::snapshot_full(full.vmstate, full.memory));
    expect_perfect(merged.memory, 2);
    EXPECT_TRUE(same_content(merged.memory, full.memory));
  }
  const std::uint64_t before = steps(memory());
  vm->must(api_requests::resume());
  expect_advance(memory(), 10);
  vm->must(api_requests::pause());
  vm->must(api_requests::snapshot_diff(alone.vmstate, alone.memory));
  EXPECT_LE(bytes_on_disk(alone.memory), (steps(memory()) - before + 16) * page_size) << "only what was written";
  EXPECT_GE(bytes_on_disk(alone.memory), 2 * page_size);
}

TEST_P(snapshot_test, vmstate_only_never_opens_its_memory_file) {
  auto vm = boot("vm");
  vm->must(api_requests::pause());
  const auto memory_file = dir_.path() / "memory", vmstate = dir_.path() / "vmstate";
  ASSERT_TRUE(write_text_file(memory_file, "mine"));
  const unique_fd watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ASSERT_GE(::inotify_add_watch(watch.get(), memory_file.c_str(), IN_ALL_EVENTS), 0);
  char event[4096];
  const auto snapshot_of = [&](const std::string& type, const std::filesystem::path& memory) {
    return api_request{"PUT", "/snapshot/create",
                       R"({"snapshot_type":")" + type + R"(","snapshot_path":")" + vmstate.string() +
                           R"(","mem_file_path":")" + memory.string() + R"("})"};
  };
  vm->must(snapshot_of("VmstateOnly", memory_file));
  EXPECT_EQ(::read(watch.get(), event, sizeof event), -1) << "the file was touched";
  EXPECT_GT(std::filesystem::file_size(vmstate), 0U);
  vm->must(snapshot_of("VmstateOnly", dir_.path() / "absent"));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "absent"));
  vm->must(snapshot_of("Full", memory_file));  // the check can fail
  EXPECT_GT(::read(watch.get(), event, sizeof event), 0);
}

TEST_P(snapshot_test, the_placeholder_of_vmstate_only_can_neither_be_opened_nor_created_by_anybody) {
  auto vm = boot("vm");
  vm->must(api_requests::pause());
  const auto request = api_requests::snapshot_vmstate_only(dir_.path() / "vmstate");
  EXPECT_EQ(request.body, R"({"snapshot_type":"VmstateOnly","snapshot_path":")" + (dir_.path() / "vmstate").string() +
                              R"(","mem_file_path":"/dev/null/forkd-vmstate-only-mem-ignored"})");
  vm->must(request);
  const std::string placeholder(api_requests::vmstate_only_placeholder);
  for (const int flags : {O_RDONLY, O_RDWR, O_RDWR | O_CREAT}) {
    EXPECT_EQ(::open(placeholder.c_str(), flags, 0600), -1);
    EXPECT_EQ(errno, ENOTDIR);
  }
  // What a VMM does that takes it for a Full snapshot.
  vm->refuses(api_requests::snapshot_full(dir_.path() / "vmstate", placeholder), "Not a directory");
}

TEST_P(snapshot_test, the_real_program_answers_each_call_in_each_state_as_the_table_says) {
  const auto listener = dir_.path() / "listener";
  const auto listening = listen_unix(listener);
  ASSERT_TRUE(listening);
  for (const vm_phase phase : all_phases) {
    std::unique_ptr<test_vmm> vm;
    if (phase == vm_phase::running || phase == vm_phase::paused) {
      vm = boot(to_string(phase));
      if (phase == vm_phase::paused) vm->must(api_requests::pause());
    } else {
      vm = start(to_string(phase));
      if (phase == vm_phase::configured) {
        vm->must(api_requests::machine_config(1, 64, true));
        vm->must(api_requests::boot_source(COPPICE_JOURNAL, "journal.pages=256"));
      }
    }
    for (const auto& each : call_table(dir_.path(), COPPICE_JOURNAL, listener)) {
      SCOPED_TRACE(std::string(to_string(phase)) + ": " + each.name);
      const std::string& refusal = each.refusal[static_cast<int>(phase)];
      if (refusal == "-") continue;
      refusal.empty() ? vm->must(each.request) : vm->refuses(each.request, refusal);
    }
    for (const auto& each : malformed_calls()) {
      SCOPED_TRACE(to_string(phase));
      vm->refuses(each.request, each.says);
    }
  }
}

TEST_P(snapshot_test, a_snapshot_that_cannot_be_loaded_is_answered_then_the_process_ends) {
  const snapshot taken = snapshot_of_running(1);
  const std::string state = *read_text_file(taken.vmstate);
  const auto damaged = dir_.path() / "damaged";
  std::string flipped = state;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 1);
  for (const std::string& content : {std::string(), state.substr(0, state.size() / 2), flipped}) {
    ASSERT_TRUE(write_text_file(damaged, content));
    auto vm = start("vm");
    vm->refuses(api_requests::load_snapshot(damaged, taken.memory, false, false, false), "Load snapshot error");
    const exit_status how = vm->exited();
    EXPECT_NE(how.code, 0) << how.describe();
    EXPECT_EQ(how.signal, 0) << how.describe();
  }
}

TEST_P(snapshot_test, wrong_journal_options_end_the_vm_with_a_message) {
  auto vm = start("vm");
  vm->must(api_requests::machine_config(1, 64, false));
  vm->must(api_requests::boot_source(COPPICE_JOURNAL, "journal.pages=many"));
  if (GetParam().needs_kvm) {
    vm->must(api_requests::start());
    EXPECT_EQ(vm->exited().describe(), "exit code 0");
    if (!GetParam().is_coppice_vmm()) return;  // its own log lines may stand in the middle of the guest's
    EXPECT_THAT(vm->log(), HasSubstr("journal: cannot start: this option takes a decimal number: journal.pages=many"));
  } else {
    vm->refuses(api_requests::start(), "this option takes a decimal number: journal.pages=many");
  }
}

INSTANTIATE_TEST_SUITE_P(on, snapshot_test, ::testing::ValuesIn(all_vmms()), name_of);

}  // namespace
}  // namespace coppice::reference
