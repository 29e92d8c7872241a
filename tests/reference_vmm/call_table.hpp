// Which call is legal in which state, and how an illegal one is refused: the same table for the API handler and for
// the real programs, Firecracker's included.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vmm/api_requests.hpp"

namespace coppice::reference {

enum class vm_phase {
  fresh,       // nothing asked yet
  configured,  // machine and boot source
  running,
  paused,
};
inline constexpr vm_phase all_phases[] = {vm_phase::fresh, vm_phase::configured, vm_phase::running, vm_phase::paused};

inline const char* to_string(vm_phase phase) {
  constexpr const char* names[] = {"fresh", "configured", "running", "paused"};
  return names[static_cast<int>(phase)];
}

struct table_call {
  std::string name;
  api_request request;
  // Per phase: empty if the call is legal, or what its refusal says.
  std::string refusal[4];
};

// The calls, such that a legal one may be made in its phase without harm to a later one of the list.
// `dir`: an existing folder for what they write. `listener`: a socket path where somebody listens.
inline std::vector<table_call> call_table(const std::filesystem::path& dir, const std::filesystem::path& kernel,
                                          const std::filesystem::path& listener) {
  using namespace api_requests;
  const std::string before = "not supported before starting the microVM";
  const std::string after = "not supported after starting the microVM";
  const std::string running = "save/restore unavailable while running";
  const std::string no_load = "Loading a microVM snapshot not allowed after configuring boot-specific resources";
  const auto vmstate = dir / "vmstate", memory = dir / "memory";
  return {
      {"describe", describe(), {}},
      {"version", version(), {}},
      {"get machine-config", {"GET", "/machine-config", ""}, {}},
      {"pause", pause(), {before, before, "-", ""}},    // "-": legal, but it would leave the phase
      {"resume", resume(), {before, before, "", "-"}},  // resuming what runs is legal
      {"uffd/wp", uffd_wp(listener), {before, before, "-", "-"}},
      {"snapshot Full", snapshot_full(vmstate, memory), {before, before, running, ""}},
      {"snapshot Diff", snapshot_diff(vmstate, memory), {before, before, running, ""}},
      {"snapshot VmstateOnly", snapshot_vmstate_only(vmstate), {before, before, running, ""}},
      {"load", load_snapshot(dir / "none", memory, false, false, false), {"-", no_load, after, after}},
      {"machine-config", api_requests::machine_config(1, 64, true), {"-", "", after, after}},
      {"boot-source", boot_source(kernel, "journal.pages=256"), {"-", "", after, after}},
      {"start", start(), {"without kernel configuration", "-", after, after}},
  };
}

// A call that is refused in every phase, whatever the VMM: by its form alone.
struct malformed_call {
  api_request request;
  std::string says;
};

inline std::vector<malformed_call> malformed_calls() {
  const auto put = [](const char* path, const char* body) { return api_request{"PUT", path, body}; };
  return {
      {put("/machine-config", R"({"vcpu_count":1,"mem_size_mib":64,"cpus":1})"), "unknown field `cpus`"},
      {put("/machine-config", R"({"mem_size_mib":64})"), "missing field `vcpu_count`"},
      {put("/machine-config", R"({"vcpu_count":1})"), "missing field `mem_size_mib`"},
      {put("/machine-config", R"({"vcpu_count":"1","mem_size_mib":64})"), "invalid type"},
      {put("/machine-config", R"({"vcpu_count":-1,"mem_size_mib":64})"), "invalid"},
      {put("/machine-config", R"({"vcpu_count":1,"mem_size_mib":64,"track_dirty_pages":"yes"})"), "invalid type"},
      {put("/boot-source", R"({"kernel_image_path":"/k","kernel":"/k"})"), "unknown field `kernel`"},
      {put("/boot-source", R"({})"), "missing field `kernel_image_path`"},
      {put("/boot-source", R"({"kernel_image_path":"/k","boot_args":7})"), "invalid type"},
      {put("/actions", R"({"action_type":"Reboot"})"), "unknown variant `Reboot`"},
      {put("/actions", R"({})"), "missing field `action_type`"},
      {{"PATCH", "/vm", R"({"state":"Stopped"})"}, "unknown variant `Stopped`"},
      {{"PATCH", "/vm", R"({"state":"Paused","hard":true})"}, "unknown field `hard`"},
      {put("/snapshot/create", R"({"snapshot_type":"Half","snapshot_path":"/s","mem_file_path":"/m"})"),
       "unknown variant `Half`"},
      {put("/snapshot/create", R"({"snapshot_type":"Full","snapshot_path":"/s"})"), "missing field `mem_file_path`"},
      {put("/snapshot/create", R"({"snapshot_type":"Full","mem_file_path":"/m"})"), "missing field `snapshot_path`"},
      {put("/snapshot/create", R"({"snapshot_path":"/s","mem_file_path":"/m","version":"1"})"),
       "unknown field `version`"},
      {put("/snapshot/load", R"({"mem_backend":{"backend_type":"File","backend_path":"/m"}})"),
       "missing field `snapshot_path`"},
      {put("/snapshot/load", R"({"snapshot_path":"/s"})"), "mem_backend"},
      {put("/snapshot/load", R"({"snapshot_path":"/s","mem_backend":{"backend_type":"Disk","backend_path":"/m"}})"),
       "unknown variant `Disk`"},
      {put("/snapshot/load", R"({"snapshot_path":"/s","mem_backend":{"backend_type":"File"}})"),
       "missing field `backend_path`"},
      {put("/snapshot/load",
           R"({"snapshot_path":"/s","mem_backend":{"backend_type":"File","backend_path":"/m","hot":true}})"),
       "unknown field `hot`"},
      {put("/uffd/wp", R"({})"), "missing field `socket`"},
      {put("/uffd/wp", R"({"socket":"/s","mode":"wp"})"), "unknown field `mode`"},
      {put("/actions", "{"), "deserializing the json body"},
      {put("/actions", "[]"), "deserializing the json body"},
      {put("/nothing", "{}"), "Invalid request method and/or path"},
      {{"PATCH", "/actions", "{}"}, "Invalid request method and/or path"},
      {{"GET", "/vm", ""}, "Invalid request method and/or path"},
  };
}

}  // namespace coppice::reference
