#include "reference_vmm/api_handler.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "reference_vmm/snapshot_memory.hpp"
#include "reference_vmm/uffd_handover.hpp"

namespace coppice::reference {
namespace {

using nlohmann::json;
using std::string_literals::operator""s;

constexpr std::uint64_t least_memory_mib = 8;
constexpr std::uint64_t most_memory_mib = 64 * 1024;

// What a snapshot must know of the configuration.
struct saved_config {
  std::uint64_t vcpus;
  std::uint64_t memory_mib;
};

error bad_json(const std::string& what) {
  return {errc::invalid_argument, 0, "An error occurred when deserializing the json body of a request: " + what + "."};
}

error failed(const std::string& what) {
  return {errc::conflict, 0, what};
}

error wrong_state(bool before_start) {
  return failed("The requested operation is not supported "s + (before_start ? "before" : "after") +
                " starting the microVM.");
}

// A refusal of /snapshot/load that does not end the process: nothing has been tried.
error still_fit(error refusal) {
  refusal.code = errc::invalid_argument;
  return refusal;
}

// As serde's deny_unknown_fields.
result<void> check_fields(const json& body, std::initializer_list<std::string_view> known) {
  if (!body.is_object()) return bad_json("invalid type: "s + body.type_name() + ", expected a JSON object");
  for (const auto& item : body.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    std::string expected;
    for (const auto name : known) expected += (expected.empty() ? "`" : ", `") + std::string(name) + '`';
    return bad_json("unknown field `" + item.key() + "`, expected one of " + expected);
  }
  return {};
}

result<std::string> text(const json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end()) return bad_json("missing field `"s + name + '`');
  if (!found->is_string()) return bad_json("invalid type: "s + found->type_name() + ", expected a string for " + name);
  return found->get<std::string>();
}

result<std::optional<std::string>> optional_text(const json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return std::optional<std::string>();
  auto present = text(body, name);
  if (!present) return std::move(present).error();
  return std::optional<std::string>(std::move(*present));
}

result<std::uint64_t> number(const json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end()) return bad_json("missing field `"s + name + '`');
  if (!found->is_number_unsigned()) return bad_json("invalid type: expected an unsigned integer for "s + name);
  return found->get<std::uint64_t>();
}

result<bool> flag(const json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end() || found->is_null()) return false;
  if (!found->is_boolean())
    return bad_json("invalid type: "s + found->type_name() + ", expected a boolean for " + name);
  return found->get<bool>();
}

result<std::string> one_of(const json& body, const char* name, std::initializer_list<std::string_view> variants) {
  auto chosen = text(body, name);
  if (!chosen || std::find(variants.begin(), variants.end(), *chosen) != variants.end()) return chosen;
  std::string expected;
  for (const auto variant : variants) expected += (expected.empty() ? "`" : ", `") + std::string(variant) + '`';
  return bad_json("unknown variant `" + *chosen + "`, expected one of " + expected);
}

error prefixed(const char* what, const error& failure) {
  return {failure.code, failure.sys_errno, what + failure.context};
}

bool has_prefix(std::string_view path, std::string_view prefix) {
  return path.starts_with(prefix) && path.size() > prefix.size();
}

}  // namespace

api_answer refusal(std::string_view fault_message) {
  return {400, json{{"fault_message", fault_message}}.dump(-1, ' ', false, json::error_handler_t::replace)};
}

struct api_handler::route {
  std::string_view method, path;
  result<void> (api_handler::*act)(const json& body);
};

api_answer api_handler::handle(std::string_view method, std::string_view path, std::string_view body) {
  static constexpr std::array<route, 7> routes{{
      {"PUT", "/machine-config", &api_handler::configure_machine},
      {"PUT", "/boot-source", &api_handler::configure_boot},
      {"PUT", "/actions", &api_handler::act},
      {"PATCH", "/vm", &api_handler::set_state},
      {"PUT", "/snapshot/create", &api_handler::create_snapshot},
      {"PUT", "/snapshot/load", &api_handler::load_snapshot},
      {"PUT", "/uffd/wp", &api_handler::hand_over_uffd},
  }};
  if (method == "GET" && path == "/") return describe();
  if (method == "GET" && path == "/version") return {200, json{{"firecracker_version", COPPICE_VERSION}}.dump()};
  if (method == "GET" && path == "/machine-config") return machine_configuration();
  if (method == "PUT" &&
      (has_prefix(path, "/drives/") || has_prefix(path, "/network-interfaces/") || path == "/vsock")) {
    return refusal(
        "coppice-vmm has no drives, network interfaces or vsock: use Firecracker for a guest that needs them.");
  }
  const auto found = std::find_if(routes.begin(), routes.end(),
                                  [&](const route& each) { return each.method == method && each.path == path; });
  if (found == routes.end()) {
    return refusal("Invalid request method and/or path: " + std::string(method) + " " + std::string(path) + ".");
  }
  const auto parsed = json::parse(body, nullptr, false);
  if (parsed.is_discarded()) return refusal(bad_json("expected a JSON object").context);
  const auto outcome = (this->*found->act)(parsed);
  if (outcome) return {};
  auto answer = refusal(outcome.error().message());
  answer.ends_process = found->path == "/snapshot/load" && outcome.error().code != errc::invalid_argument;
  return answer;
}

const char* api_handler::state_name() const noexcept {
  switch (state_) {
    case vm_state::not_started:
      return "Not started";
    case vm_state::running:
      return "Running";
    case vm_state::paused:
      return "Paused";
  }
  return "";
}

api_answer api_handler::describe() const {
  const json body{{"id", id_},
                  {"state", state_name()},
                  {"vmm_version", COPPICE_VERSION},
                  {"app_name", "coppice-vmm"},
                  {"machine", use_kvm_ ? "kvm" : "threads"}};
  return {200, body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

api_answer api_handler::machine_configuration() const {
  return {200, json{{"vcpu_count", config_.vcpus},
                    {"mem_size_mib", config_.memory_mib},
                    {"smt", false},
                    {"track_dirty_pages", config_.track_dirty_pages}}
                   .dump()};
}

result<void> api_handler::configure_machine(const json& body) {
  COPPICE_TRY(check_fields(body, {"vcpu_count", "mem_size_mib", "smt", "track_dirty_pages"}));
  auto vcpus = number(body, "vcpu_count");
  if (!vcpus) return std::move(vcpus).error();
  auto memory_mib = number(body, "mem_size_mib");
  if (!memory_mib) return std::move(memory_mib).error();
  auto smt = flag(body, "smt");
  if (!smt) return std::move(smt).error();
  auto track = flag(body, "track_dirty_pages");
  if (!track) return std::move(track).error();
  if (state_ != vm_state::not_started) return wrong_state(false);
  configured_ = true;
  if (*smt) return failed("coppice-vmm has no SMT: leave it out.");
  if (*vcpus < 1 || *vcpus > max_vcpus)
    return failed("The vCPU number is invalid! coppice-vmm runs 1 to " + std::to_string(max_vcpus) + ".");
  if (*memory_mib < least_memory_mib || *memory_mib > most_memory_mib)
    return failed("The memory size (MiB) is invalid: " + std::to_string(least_memory_mib) + " to " +
                  std::to_string(most_memory_mib) + ".");
  config_.vcpus = static_cast<unsigned>(*vcpus);
  config_.memory_mib = *memory_mib;
  config_.track_dirty_pages = *track;
  return {};
}

result<void> api_handler::configure_boot(const json& body) {
  COPPICE_TRY(check_fields(body, {"kernel_image_path", "boot_args", "initrd_path"}));
  auto kernel = text(body, "kernel_image_path");
  if (!kernel) return std::move(kernel).error();
  auto initrd = optional_text(body, "initrd_path");
  if (!initrd) return std::move(initrd).error();
  auto arguments = optional_text(body, "boot_args");
  if (!arguments) return std::move(arguments).error();
  if (state_ != vm_state::not_started) return wrong_state(false);
  configured_ = true;
  std::error_code problem;
  if (!std::filesystem::exists(*kernel, problem))
    return failed("The kernel file cannot be opened: " + *kernel + ": no such file.");
  if (*initrd && !std::filesystem::exists(**initrd, problem))
    return failed("The initrd file cannot be opened: " + **initrd + ": no such file.");
  config_.kernel = *kernel;
  config_.initrd = initrd->value_or("");
  if (*arguments) config_.boot_args = **arguments;
  return {};
}

result<void> api_handler::act(const json& body) {
  COPPICE_TRY(check_fields(body, {"action_type"}));
  auto action = one_of(body, "action_type", {"InstanceStart"});
  if (!action) return std::move(action).error();
  if (state_ != vm_state::not_started) return wrong_state(false);
  if (config_.kernel.empty()) return failed("Cannot start microvm without kernel configuration.");
  auto ram = guest_ram::anonymous(config_.memory_mib * mib);
  if (!ram) return std::move(ram).error();
  auto made = make_machine(use_kvm_, std::move(*ram), config_.vcpus, config_.track_dirty_pages);
  if (!made) return std::move(made).error();
  COPPICE_TRY((*made)->boot(config_));
  machine_ = std::move(*made);
  machine_->resume();
  state_ = vm_state::running;
  return {};
}

result<void> api_handler::set_state(const json& body) {
  COPPICE_TRY(check_fields(body, {"state"}));
  auto wanted = one_of(body, "state", {"Paused", "Resumed"});
  if (!wanted) return std::move(wanted).error();
  if (state_ == vm_state::not_started) return wrong_state(true);
  if (*wanted == "Paused") {
    machine_->pause();
    state_ = vm_state::paused;
  } else {
    machine_->resume();
    state_ = vm_state::running;
  }
  return {};
}

result<void> api_handler::create_snapshot(const json& body) {
  COPPICE_TRY(check_fields(body, {"snapshot_type", "snapshot_path", "mem_file_path"}));
  std::string type = "Full";
  if (body.contains("snapshot_type")) {
    auto chosen = one_of(body, "snapshot_type", {"Diff", "Full", "VmstateOnly"});
    if (!chosen) return std::move(chosen).error();
    type = *chosen;
  }
  auto vmstate = text(body, "snapshot_path");
  if (!vmstate) return std::move(vmstate).error();
  auto memory = text(body, "mem_file_path");
  if (!memory) return std::move(memory).error();
  if (state_ == vm_state::not_started) return wrong_state(true);
  if (state_ != vm_state::paused)
    return failed(
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while "
        "running: pause the microVM first.");
  if (type == "Diff" && !config_.track_dirty_pages)
    return failed("Create snapshot error: Diff snapshots are not allowed on uVMs with dirty page tracking disabled.");
  constexpr auto what = "Create snapshot error: ";
  auto state = machine_->save();
  if (!state) return prefixed(what, state.error());
  state->set_struct("config", saved_config{config_.vcpus, config_.memory_mib});
  if (auto written = write_state_file(*vmstate, *state); !written) return prefixed(what, written.error());
  if (type == "VmstateOnly") return {};
  // Whichever kind is written now, the next Diff counts from it.
  if (config_.track_dirty_pages) {
    if (auto collected = machine_->collect_dirty(); !collected) return prefixed(what, collected.error());
  }
  auto written =
      type == "Full" ? write_full_memory(*memory, machine_->memory()) : write_dirty_memory(*memory, machine_->memory());
  if (!written) return prefixed(what, written.error());
  return {};
}

result<void> api_handler::load_snapshot(const json& body) {
  COPPICE_TRY(
      check_fields(body, {"snapshot_path", "mem_backend", "enable_diff_snapshots", "track_dirty_pages", "resume_vm"}));
  auto vmstate = text(body, "snapshot_path");
  if (!vmstate) return std::move(vmstate).error();
  const auto backend = body.find("mem_backend");
  if (backend == body.end()) return bad_json("missing field `mem_backend`");
  COPPICE_TRY(check_fields(*backend, {"backend_type", "backend_path", "shared"}));
  auto kind = one_of(*backend, "backend_type", {"File", "Uffd"});
  if (!kind) return std::move(kind).error();
  auto path = text(*backend, "backend_path");
  if (!path) return std::move(path).error();
  auto shared = flag(*backend, "shared");
  if (!shared) return std::move(shared).error();
  auto old_track = flag(body, "enable_diff_snapshots");  // the older name of track_dirty_pages
  if (!old_track) return std::move(old_track).error();
  auto track = flag(body, "track_dirty_pages");
  if (!track) return std::move(track).error();
  auto resume = flag(body, "resume_vm");
  if (!resume) return std::move(resume).error();
  if (*shared && *kind == "Uffd") return bad_json("`shared` needs the backend_type `File`");
  if (state_ != vm_state::not_started) return still_fit(wrong_state(false));
  if (configured_)
    return still_fit(failed(
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."));
  constexpr auto what = "Load snapshot error: ";
  auto state = read_state_file(*vmstate);
  if (!state) return failed(prefixed(what, state.error()).message());
  auto saved = state->get_struct<saved_config>("config");
  if (!saved) return failed(prefixed(what, saved.error()).message());
  if (saved->vcpus < 1 || saved->vcpus > max_vcpus || saved->memory_mib > most_memory_mib)
    return failed(what + "damaged vmstate: its configuration makes no sense"s);
  const std::uint64_t size = saved->memory_mib * mib;
  auto ram = *kind == "File" ? guest_ram::from_file(*path, size, *shared) : guest_ram::from_uffd(*path, size);
  if (!ram) return failed(prefixed(what, ram.error()).message());
  const bool tracks = *track || *old_track;
  auto made = make_machine(use_kvm_, std::move(*ram), static_cast<unsigned>(saved->vcpus), tracks);
  if (!made) return failed(prefixed(what, made.error()).message());
  if (auto restored = (*made)->restore(*state); !restored) return failed(prefixed(what, restored.error()).message());
  machine_ = std::move(*made);
  config_.vcpus = static_cast<unsigned>(saved->vcpus);
  config_.memory_mib = saved->memory_mib;
  config_.track_dirty_pages = tracks;
  state_ = vm_state::paused;
  if (*resume) {
    machine_->resume();
    state_ = vm_state::running;
  }
  return {};
}

result<void> api_handler::hand_over_uffd(const json& body) {
  COPPICE_TRY(check_fields(body, {"socket"}));
  auto socket = text(body, "socket");
  if (!socket) return std::move(socket).error();
  if (state_ == vm_state::not_started) return wrong_state(true);
  auto uffd = create_wp_uffd(machine_->memory().regions());
  if (!uffd) return std::move(uffd).error();
  auto connection = send_uffd(*socket, uffd->get(), machine_->memory().regions());
  if (!connection) return std::move(connection).error();
  return {};  // no copy of the uffd is kept: with the receiver's, the protection ends
}

}  // namespace coppice::reference
