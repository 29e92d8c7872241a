#include "reference_vmm/api_handler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "journal_guest/journal_oracle.hpp"
#include "tests/reference_vmm/call_table.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/unix_socket.hpp"

namespace coppice::reference {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The handler alone, with its machines on threads.
struct api_handler_test : ::testing::Test {
  api_answer ask(const api_request& request) { return handler->handle(request.method, request.path, request.body); }
  static std::string fault_message(const api_answer& answer) {
    const auto body = json::parse(answer.body, nullptr, false);
    return body.is_object() && body.contains("fault_message") ? body["fault_message"].get<std::string>() : answer.body;
  }
  void expect_done(const api_request& request) {
    const auto answer = ask(request);
    EXPECT_EQ(answer.status, 204U) << request.path << " " << request.body << ": " << answer.body;
    EXPECT_EQ(answer.body, "");
    EXPECT_FALSE(answer.ends_process);
  }
  void expect_refused(const api_request& request, const std::string& why, bool ends_process = false) {
    const auto answer = ask(request);
    EXPECT_EQ(answer.status, 400U) << request.method << " " << request.path << " " << request.body;
    EXPECT_THAT(fault_message(answer), HasSubstr(why)) << request.path << " " << request.body;
    EXPECT_EQ(answer.ends_process, ends_process) << request.path << " " << request.body;
  }
  std::string state() { return json::parse(ask(api_requests::describe()).body).at("state"); }

  void bring_to(vm_phase phase, bool track_dirty = true) {
    handler = std::make_unique<api_handler>("vm-1", false);
    if (phase == vm_phase::fresh) return;
    expect_done(api_requests::machine_config(2, 64, track_dirty));
    expect_done(api_requests::boot_source(kernel, "journal.pages=256"));
    if (phase == vm_phase::configured) return;
    expect_done(api_requests::start());
    if (phase == vm_phase::paused) expect_done(api_requests::pause());
  }

  temp_dir dir;
  std::filesystem::path kernel = COPPICE_JOURNAL;
  std::unique_ptr<api_handler> handler = std::make_unique<api_handler>("vm-1", false);
};

TEST_F(api_handler_test, each_call_is_legal_or_refused_in_each_state_as_the_table_says) {
  const auto listener = dir.path() / "listener";
  const auto listening = listen_unix(listener);
  ASSERT_TRUE(listening);
  for (const vm_phase phase : all_phases) {
    bring_to(phase);
    const std::string before = state();
    for (const auto& each : call_table(dir.path(), kernel, listener)) {
      SCOPED_TRACE(std::string(to_string(phase)) + ": " + each.name);
      const std::string& refusal = each.refusal[static_cast<int>(phase)];
      if (refusal == "-") continue;
      if (!refusal.empty()) {
        expect_refused(each.request, refusal);
      } else if (each.request.method == "GET") {
        EXPECT_EQ(ask(each.request).status, 200U);
      } else {
        expect_done(each.request);
      }
      EXPECT_EQ(state(), before);
    }
  }
}

TEST_F(api_handler_test, a_malformed_call_is_refused_for_its_form_in_every_state) {
  for (const vm_phase phase : all_phases) {
    bring_to(phase);
    for (const auto& each : malformed_calls()) {
      SCOPED_TRACE(to_string(phase));
      expect_refused(each.request, each.says);
    }
    for (const auto& each : {R"(null)", R"(7)", R"("text")", "", "\xff", R"({"action_type":"InstanceStart)"}) {
      expect_refused({"PUT", "/actions", each}, "deserializing the json body");
    }
  }
}

TEST_F(api_handler_test, pause_and_resume_go_back_and_forth_and_may_be_repeated) {
  bring_to(vm_phase::running);
  EXPECT_EQ(state(), "Running");
  for (int i = 0; i < 3; ++i) {
    expect_done(api_requests::pause());
    expect_done(api_requests::pause());
    EXPECT_EQ(state(), "Paused");
    expect_done(api_requests::resume());
    expect_done(api_requests::resume());
    EXPECT_EQ(state(), "Running");
  }
}

TEST_F(api_handler_test, it_says_who_it_is) {
  const auto described = json::parse(ask(api_requests::describe()).body);
  EXPECT_EQ(described.at("id"), "vm-1");
  EXPECT_EQ(described.at("state"), "Not started");
  EXPECT_EQ(described.at("app_name"), "coppice-vmm");
  EXPECT_EQ(described.at("machine"), "threads");
  EXPECT_EQ(json::parse(ask(api_requests::version()).body).at("firecracker_version"), described.at("vmm_version"));
  expect_done(api_requests::machine_config(3, 96, true));
  const auto machine = json::parse(ask({"GET", "/machine-config", ""}).body);
  EXPECT_EQ(machine.at("vcpu_count"), 3);
  EXPECT_EQ(machine.at("mem_size_mib"), 96);
  EXPECT_EQ(machine.at("track_dirty_pages"), true);
}

TEST_F(api_handler_test, machines_that_cannot_be_are_refused_and_the_configuration_of_before_stays) {
  expect_done(api_requests::machine_config(2, 64, false));
  expect_refused(api_requests::machine_config(0, 64, false), "vCPU number is invalid");
  expect_refused(api_requests::machine_config(5, 64, false), "vCPU number is invalid");
  expect_refused(api_requests::machine_config(1, 7, false), "memory size");
  expect_refused(api_requests::machine_config(1, 65 * 1024, false), "memory size");
  expect_refused(api_requests::machine_config(1, ~0ULL, false), "memory size");
  expect_refused({"PUT", "/machine-config", R"({"vcpu_count":2,"mem_size_mib":64,"smt":true})"}, "SMT");
  expect_refused(api_requests::boot_source(dir.path() / "none", ""), "none");
  expect_refused({"PUT", "/boot-source", R"({"kernel_image_path":")" + kernel.string() + R"(","initrd_path":"/i"})"},
                 "initrd");
  EXPECT_EQ(json::parse(ask({"GET", "/machine-config", ""}).body).at("vcpu_count"), 2);
}

TEST_F(api_handler_test, devices_are_refused_with_what_to_use_instead) {
  for (const char* path : {"/drives/rootfs", "/network-interfaces/eth0", "/vsock"}) {
    expect_refused({"PUT", path, "{}"}, "use Firecracker");
  }
}

TEST_F(api_handler_test, wrong_journal_options_refuse_the_start_and_another_try_may_follow) {
  expect_done(api_requests::machine_config(1, 64, false));
  for (const auto& [arguments, why] : {std::pair("journal.pages=x", "this option takes a decimal number"),
                                       std::pair("journal.lanes=2", "journal.pages, pattern, pace"),
                                       std::pair("journal.pages=0", "journal.pages must be from 1"),
                                       std::pair("journal.pages=50000", "do not fit into RAM")}) {
    expect_done(api_requests::boot_source(kernel, arguments));
    expect_refused(api_requests::start(), why);
    EXPECT_EQ(state(), "Not started");
  }
  expect_done(api_requests::boot_source(kernel, "quiet journal.pages=16 panic=1"));
  expect_done(api_requests::start());
}

TEST_F(api_handler_test, a_diff_needs_dirty_tracking) {
  bring_to(vm_phase::paused, false);
  expect_refused(api_requests::snapshot_diff(dir.path() / "s", dir.path() / "m"), "dirty page tracking disabled");
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "s"));
  expect_done(api_requests::snapshot_full(dir.path() / "s", dir.path() / "m"));
}

TEST_F(api_handler_test, a_snapshot_that_cannot_be_written_is_refused_and_the_machine_stays_paused) {
  bring_to(vm_phase::paused);
  expect_refused(api_requests::snapshot_full(dir.path() / "none" / "s", dir.path() / "m"), "Create snapshot error");
  expect_refused(api_requests::snapshot_full(dir.path() / "s", dir.path() / "none" / "m"), "Create snapshot error");
  expect_refused(api_requests::snapshot_full(dir.path() / "s", api_requests::vmstate_only_placeholder),
                 "Not a directory");
  EXPECT_EQ(state(), "Paused");
  expect_done(api_requests::resume());
}

struct loaded_snapshot : api_handler_test {
  void SetUp() override {
    bring_to(vm_phase::paused);
    expect_done(api_requests::snapshot_full(vmstate, memory));
    bring_to(vm_phase::fresh);
  }
  std::filesystem::path vmstate = dir.path() / "vmstate", memory = dir.path() / "memory";
};

TEST_F(loaded_snapshot, it_is_paused_or_runs_as_asked_with_the_configuration_of_its_snapshot) {
  for (const bool resume : {false, true}) {
    for (const bool shared : {false, true}) {
      bring_to(vm_phase::fresh);
      expect_done(api_requests::load_snapshot(vmstate, memory, shared, true, resume));
      EXPECT_EQ(state(), resume ? "Running" : "Paused");
      const auto machine = json::parse(ask({"GET", "/machine-config", ""}).body);
      EXPECT_EQ(machine.at("vcpu_count"), 2);
      EXPECT_EQ(machine.at("mem_size_mib"), 64);
      EXPECT_EQ(machine.at("track_dirty_pages"), true);
      expect_done(api_requests::pause());
      if (shared) break;  // from here on the memory file is another instant's
      expect_done(api_requests::snapshot_diff(dir.path() / "s2", dir.path() / "m2"));
    }
    bring_to(vm_phase::paused);
    expect_done(api_requests::snapshot_full(vmstate, memory));
  }
}

TEST_F(loaded_snapshot, both_names_of_dirty_tracking_are_known_and_it_is_off_without_one) {
  const auto load = [&](const std::string& more) {
    bring_to(vm_phase::fresh);
    json body{{"snapshot_path", vmstate}, {"mem_backend", {{"backend_type", "File"}, {"backend_path", memory}}}};
    if (!more.empty()) body[more] = true;
    expect_done({"PUT", "/snapshot/load", body.dump()});
    return ask(api_requests::snapshot_diff(dir.path() / "s2", dir.path() / "m2")).status;
  };
  EXPECT_EQ(load("enable_diff_snapshots"), 204U);
  EXPECT_EQ(load("track_dirty_pages"), 204U);
  EXPECT_EQ(load(""), 400U);
}

// Firecracker calls the process "too dirty to recover" then.
TEST_F(loaded_snapshot, what_cannot_be_loaded_ends_the_process_with_the_reason) {
  using api_requests::load_snapshot;
  const auto fails = [&](const std::filesystem::path& state_file, const std::filesystem::path& memory_file,
                         const std::string& why) {
    bring_to(vm_phase::fresh);
    expect_refused(load_snapshot(state_file, memory_file, false, false, false), why, true);
  };
  fails(dir.path() / "none", memory, "Load snapshot error: ");
  fails(vmstate, dir.path() / "none", "Failed to load guest memory");
  ASSERT_TRUE(write_text_file(dir.path() / "text", "no vmstate, that is plain to see"));
  fails(dir.path() / "text", memory, "damaged vmstate");
  fails(vmstate, dir.path() / "text", "length is greater");
  ASSERT_TRUE(write_text_file(dir.path() / "zeros", std::string(64 << 20, '\0')));
  fails(vmstate, dir.path() / "zeros", "the memory file holds no journal");
  bring_to(vm_phase::fresh);
  const json nobody{{"snapshot_path", vmstate},
                    {"mem_backend", {{"backend_type", "Uffd"}, {"backend_path", dir.path() / "nobody"}}}};
  expect_refused({"PUT", "/snapshot/load", nobody.dump()}, "Load snapshot error: ", true);
}

TEST_F(loaded_snapshot, a_load_refused_for_its_form_leaves_the_process_fit_for_another) {
  json body{{"snapshot_path", vmstate},
            {"mem_backend", {{"backend_type", "Uffd"}, {"backend_path", memory}, {"shared", true}}}};
  expect_refused({"PUT", "/snapshot/load", body.dump()}, "`shared` needs");
  expect_done(api_requests::load_snapshot(vmstate, memory, false, false, false));
}

// Sections that are not of this machine, under a checksum that matches.
TEST_F(loaded_snapshot, a_vmstate_that_lacks_a_part_or_makes_no_sense_is_refused) {
  struct saved {
    std::uint64_t vcpus, memory_mib;
  };
  for (const saved config : {saved{0, 64}, saved{5, 64}, saved{2, 0}, saved{2, 65 * 1024}, saved{~0ULL, ~0ULL}}) {
    auto sections = read_state_file(vmstate);
    ASSERT_TRUE(sections);
    sections->set_struct("config", config);
    ASSERT_TRUE(write_state_file(dir.path() / "other", *sections));
    bring_to(vm_phase::fresh);
    expect_refused(api_requests::load_snapshot(dir.path() / "other", memory, false, false, false),
                   "Load snapshot error: ", true);
  }
  auto sections = read_state_file(vmstate);
  sections->set_struct("config", saved{3, 64});  // there is no third thread in it
  ASSERT_TRUE(write_state_file(dir.path() / "other", *sections));
  bring_to(vm_phase::fresh);
  expect_refused(api_requests::load_snapshot(dir.path() / "other", memory, false, false, false), "thread2", true);
}

}  // namespace
}  // namespace coppice::reference
