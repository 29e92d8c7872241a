#include "vmm/capability_probe.hpp"

#include <future>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "vmm/api_requests.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

constexpr auto start_deadline = 10s;
constexpr auto call_deadline = 3s;

result<api_reply> call_and_wait(api_channel& api, api_request request) {
  auto answered = std::make_shared<std::promise<result<api_reply>>>();
  auto answer = answered->get_future();
  api.call(std::move(request), call_deadline,
           [answered](result<api_reply> reply) { answered->set_value(std::move(reply)); });
  return answer.get();
}

std::string end_of_log(const std::filesystem::path& log) {
  constexpr std::size_t enough = 600;
  const auto text = read_file_end(log, enough);
  return !text || text->empty() ? " (it wrote nothing)" : "; it wrote: " + *text;
}

// Calls `request` until the process listens.
result<api_reply> first_call(api_channel& api, const api_request& request, std::future<exit_status>& ended) {
  const auto until = clock::now() + start_deadline;
  for (;;) {
    auto reply = call_and_wait(api, request);
    if (reply || reply.error().code != errc::unavailable) return reply;
    if (ended.wait_for(2ms) == std::future_status::ready)
      return error{errc::io, 0, "the VMM ended with " + ended.get().describe() + " before it answered"};
    if (clock::now() > until) return error{errc::deadline_exceeded, 0, "the VMM does not listen at its API socket"};
  }
}

std::string text_field(const api_reply& reply, const char* name) {
  const auto parsed = nlohmann::json::parse(reply.body, nullptr, false);
  if (!parsed.is_object() || !parsed.contains(name) || !parsed[name].is_string()) return {};
  return parsed[name].get<std::string>();
}

// A probe must be refused. Whether the refusal is other than `unknown`, the one of a VMM that lacks the ability.
bool refused_but_known(api_channel& api, api_request request, std::string_view unknown) {
  const auto reply = call_and_wait(api, std::move(request));
  return !reply && reply.error().code == errc::conflict && reply.error().context.find(unknown) == std::string::npos &&
         reply.error().context.find(": status 404") == std::string::npos;
}

// serde (Firecracker's parser) answers "unknown variant `VmstateOnly`, expected `Diff` or `Full`" where it is not
// known, and the VMM that there is nothing to snapshot before boot where it is.
bool has_vmstate_only(api_channel& api, const std::filesystem::path& dir) {
  return refused_but_known(api, api_requests::snapshot_vmstate_only(dir / "vmstate"), "unknown variant");
}

// `shared` is sent with the wrong type, so that parsing ends the request whatever the VMM is: a load that fails later
// ends a Firecracker process (src/vmm/src/rpc_interface.rs, load_snapshot). Without the ability the parser says
// "unknown field `shared`" (deny_unknown_fields, src/vmm/src/vmm_config/snapshot.rs).
bool has_shared_memory(api_channel& api, const std::filesystem::path& dir) {
  auto request = api_requests::load_snapshot(dir / "no-vmstate", dir / "no-memory", false, false, false);
  auto body = nlohmann::json::parse(request.body);
  body["mem_backend"]["shared"] = "neither true nor false";
  request.body = body.dump();
  return refused_but_known(api, std::move(request), "unknown field");
}

// An empty body lacks `socket`: refused by the parser. Without the ability: "Invalid request method and/or path".
bool has_uffd_wp(api_channel& api) {
  return refused_but_known(api, {"PUT", "/uffd/wp", "{}"}, "Invalid request method and/or path");
}

}  // namespace

result<vmm_capabilities> probe_capabilities(vmm_host& host, const std::filesystem::path& dir) {
  start_vmm_request request;
  request.id = "probe";
  request.api_socket = dir / "api.sock";
  request.log_file = dir / "log";
  auto exited = std::make_shared<std::promise<exit_status>>();
  auto ended = exited->get_future();
  auto vmm = host.start(request, [exited](exit_status status) { exited->set_value(status); });
  if (!vmm) return std::move(vmm).error();
  auto& api = (*vmm)->api();

  const auto description = first_call(api, api_requests::describe(), ended);
  if (!description) {
    auto failure = description.error();
    failure.context += end_of_log(request.log_file);
    return failure;
  }
  vmm_capabilities found;
  found.app_name = text_field(*description, "app_name");
  found.version = text_field(*description, "vmm_version");
  if (const auto version = call_and_wait(api, api_requests::version()); version) {
    if (auto text = text_field(*version, "firecracker_version"); !text.empty()) found.version = std::move(text);
  }
  if (found.app_name.empty())
    return error{errc::io, 0, "GET / answered without an app_name: not a Firecracker API (" + description->body + ")"};
  found.vmstate_only = has_vmstate_only(api, dir);
  found.uffd_wp = has_uffd_wp(api);
  found.shared_memory = has_shared_memory(api, dir);
  return found;
}

}  // namespace coppice
