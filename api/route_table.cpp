// What each route does, and the table of them.
#include "api/route_table.hpp"

#include <array>

#include "api/agent_protocol.hpp"
#include "api/event_log.hpp"
#include "api/json.hpp"
#include "api/openapi.hpp"
#include "base/http_status.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using answer_function = std::function<void(route_answer)>;

void answer_json(const answer_function& answer, unsigned status, const json& value) {
  answer({.status = status, .body = dump(value) + "\n"});
}

void answer_error(const answer_function& answer, const error& failure) {
  answer_json(answer, http_status(failure.code), to_json(failure));
}

// A completion that answers with the value as JSON.
template <class T>
control_plane::completion<T> answering(answer_function answer, unsigned status) {
  return [answer = std::move(answer), status](result<T> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer_json(answer, status, to_json(*outcome));
  };
}

template <class T>
control_plane::completion<std::vector<T>> answering_list(answer_function answer, unsigned status) {
  return [answer = std::move(answer), status](result<std::vector<T>> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    json list = json::array();
    for (const T& item : *outcome) list.push_back(to_json(item));
    answer_json(answer, status, list);
  };
}

control_plane::completion<void> answering_nothing(answer_function answer) {
  return [answer = std::move(answer)](result<void> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer({.status = 204});
  };
}

std::vector<std::string> names_of(const snapshot_info& made) {
  return {made.tag};
}
std::vector<std::string> names_of(const std::vector<sandbox_info>& made) {
  std::vector<std::string> ids;
  ids.reserve(made.size());
  for (const auto& each : made) ids.push_back(each.id);
  return ids;
}

// `then`, after what was made has been noted.
template <class T>
control_plane::completion<T> noting(const call& c, control_plane::completion<T> then) {
  return [details = c.details, then = std::move(then)](result<T> outcome) {
    if (outcome.ok()) details->made = names_of(*outcome);
    then(std::move(outcome));
  };
}

bool flag(const call& c, std::string_view name) {
  for (const auto& [key, value] : c.query) {
    if (key == name) return value == "true";
  }
  return false;
}

void list_snapshots(call c) {
  c.plane.list_snapshots(answering_list<snapshot_info>(c.answer, 200));
}
void snapshot_info_of(call c) {
  c.plane.snapshot(c.name, [answer = c.answer](result<snapshot_info> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer_json(answer, 200, details_to_json(*outcome));
  });
}
void delete_snapshot(call c) {
  const bool cascade = flag(c, "cascade");
  if (cascade && flag(c, "force")) {
    return answer_error(c.answer, {errc::invalid_argument, 0,
                                   "\"cascade\" deletes the descendants, \"force\" leaves them: give one of them"});
  }
  c.plane.delete_snapshot(c.name, cascade, answering_nothing(c.answer));
}
void verify_snapshot(call c) {
  c.plane.verify_snapshot(c.name, answering<verify_report>(c.answer, 200));
}
void list_sandboxes(call c) {
  c.plane.list_sandboxes(answering_list<sandbox_info>(c.answer, 200));
}
void sandbox_info_of(call c) {
  c.plane.sandbox(c.name, answering<sandbox_info>(c.answer, 200));
}
void delete_sandbox(call c) {
  c.plane.delete_sandbox(c.name, answering_nothing(c.answer));
}

void create_snapshot(call c) {
  auto request = parse_create_snapshot(c.body);
  if (!request.ok()) return answer_error(c.answer, request.error());
  request->request_id = c.request_id;
  c.details->tag = request->tag;
  c.details->kernel = request->kernel;
  if (request->initrd) c.details->initrd = *request->initrd;
  if (request->rootfs) c.details->rootfs = request->rootfs->path;
  auto kernel = c.paths.resolve(request->kernel);
  if (!kernel.ok()) return answer_error(c.answer, kernel.error());
  request->kernel = *std::move(kernel);
  if (request->initrd) {
    auto initrd = c.paths.resolve(*request->initrd);
    if (!initrd.ok()) return answer_error(c.answer, initrd.error());
    request->initrd = *std::move(initrd);
  }
  if (request->rootfs) {
    auto rootfs = c.paths.resolve(request->rootfs->path);
    if (!rootfs.ok()) return answer_error(c.answer, rootfs.error());
    request->rootfs->path = *std::move(rootfs);
  }
  c.plane.create_snapshot(*std::move(request), noting(c, answering<snapshot_info>(c.answer, 201)));
}

void create_sandboxes(call c) {
  auto request = parse_create_sandboxes(c.body);
  if (!request.ok()) return answer_error(c.answer, request.error());
  request->request_id = c.request_id;
  c.details->snapshot_tag = request->snapshot_tag;
  c.details->count = request->n;
  c.plane.create_sandboxes(*std::move(request), noting(c, answering_list<sandbox_info>(c.answer, 201)));
}

void branch_sandbox(call c) {
  auto request = parse_branch(c.body, c.plane.vmm().live() ? branch_mode::live : branch_mode::full);
  if (!request.ok()) return answer_error(c.answer, request.error());
  request->request_id = c.request_id;
  c.details->tag = request->tag.value_or("");
  c.details->mode = to_string(request->mode);
  const control_plane::completion<snapshot_info> done = [answer = c.answer](result<snapshot_info> outcome) {
    if (!outcome.ok()) return answer_error(answer, outcome.error());
    answer_json(answer, outcome->status == snapshot_status::writing ? 202 : 201, to_json(*outcome));
  };
  c.plane.branch(c.name, *std::move(request), noting(c, done));
}

void journal(call c) {
  c.plane.journal(c.name, flag(c, "reset"), answering<journal_status>(c.answer, 200));
}

// Passes a request on to the agent inside the guest. `translate`: its answer to ours.
void ask_agent(const call& c, const char* what, result<agent_request> request, json (*translate)(const json&)) {
  if (!request.ok()) return answer_error(c.answer, request.error());
  const auto fail = [answer = c.answer, what](error failure) {
    failure.context = std::string(what) + ": " + failure.context;
    answer_error(answer, failure);
  };
  auto when_answered = [answer = c.answer, fail, translate](const result<std::string>& text) {
    if (!text.ok()) return fail(text.error());
    const auto said = parse_agent_answer(*text);
    if (!said.ok()) return fail(said.error());
    answer_json(answer, 200, translate(*said));
  };
  c.plane.open_guest_socket(c.name, [exchange = c.ask_guest, request = *std::move(request), fail,
                                     when_answered](result<guest_socket> opened) {
    if (!opened.ok()) return fail(opened.error());
    exchange(*std::move(opened), request.line, request.patience, when_answered);
  });
}

json unchanged(const json& agent) {
  return agent;
}

void exec(call c) {
  auto request = parse_exec(c.body);
  if (request.ok()) c.details->program = request->program;
  ask_agent(c, "exec", std::move(request), exec_answer);
}

void eval(call c) {
  ask_agent(c, "eval", parse_eval(c.body), eval_answer);
}

void ping(call c) {
  ask_agent(c, "ping", ping_request(), unchanged);
}

void events(call c) {
  route_answer stream{.status = 200, .content_type = "text/event-stream", .streams_events = true};
  if (!c.last_event_id.empty()) {
    stream.events_after = parse_event_id(c.last_event_id);
    if (!stream.events_after) return c.answer(failure_answer(400, "bad Last-Event-ID: it is the id of an event"));
  }
  c.answer(std::move(stream));
}

void healthz(call c) {
  answer_json(c.answer, 200, {{"status", "ok"}, {"ok", true}});
}

void version(call c) {
  answer_json(c.answer, 200,
              {{"name", "coppiced"}, {"version", COPPICE_VERSION}, {"api", "v1"}, {"vmm", to_json(c.plane.vmm())}});
}

void openapi(call c) {
  answer_json(c.answer, 200, openapi_document());
}

void metrics_text(call c) {
  c.answer({.status = 200, .body = c.plane.metrics_text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

constexpr std::array<unsigned, 1> ok{200};
constexpr std::array<unsigned, 1> created{201};
constexpr std::array<unsigned, 2> branched{201, 202};
constexpr std::array<unsigned, 1> nothing{204};
constexpr std::array<unsigned, 1> find_failures{404};
constexpr std::array<unsigned, 2> change_failures{404, 409};

constexpr std::array<query_parameter, 1> journal_query{
    query_parameter{"reset", "forget the longest stall after reading it; needs the role write", true}};
constexpr std::array<query_parameter, 2> delete_query{
    query_parameter{"cascade", "delete all snapshots that descend from this one, too"},
    query_parameter{"force",
                    "leave the descendants, as forkd's clients say it; the default here, as every image is whole. Not "
                    "with cascade"}};

constexpr std::array routes = {
    route{.method = "GET",
          .pattern = "/healthz",
          .id = "health",
          .summary = "Whether coppiced serves",
          .gives = "health",
          .open = true,
          .successes = ok,
          .run = healthz},
    route{.method = "GET",
          .pattern = "/version",
          .id = "version",
          .summary = "What runs here, and what its VMM can do",
          .gives = "version",
          .open = true,
          .successes = ok,
          .run = version},
    route{.method = "GET",
          .pattern = "/metrics",
          .id = "metrics",
          .summary = "All metrics, as Prometheus reads them",
          .gives = "text",
          .media = "text/plain",
          .successes = ok,
          .run = metrics_text},
    route{.method = "GET",
          .pattern = "/v1/snapshots",
          .id = "list_snapshots",
          .summary = "The snapshots: ready, being written, and failed ones",
          .gives = "[snapshot]",
          .successes = ok,
          .run = list_snapshots},
    route{.method = "POST",
          .pattern = "/v1/snapshots",
          .id = "create_snapshot",
          .summary = "Boot a kernel and take its snapshot",
          .takes = "create_snapshot",
          .gives = "snapshot",
          .creates = true,
          .successes = created,
          .failures = change_failures,
          .run = create_snapshot},
    route{.method = "GET",
          .pattern = "/v1/snapshots/{tag}/info",
          .id = "snapshot_info",
          .named = path_name::snapshot,
          .summary = "One snapshot, with its lineage",
          .gives = "snapshot_details",
          .successes = ok,
          .failures = find_failures,
          .run = snapshot_info_of},
    route{.method = "DELETE",
          .pattern = "/v1/snapshots/{tag}",
          .id = "delete_snapshot",
          .named = path_name::snapshot,
          .query = delete_query,
          .summary = "Delete a snapshot; one in the making is cancelled, and its request answered by 409 (cancelled)",
          .successes = nothing,
          .failures = change_failures,
          .run = delete_snapshot},
    route{.method = "POST",
          .pattern = "/v1/snapshots/{tag}/verify",
          .id = "verify_snapshot",
          .named = path_name::snapshot,
          .summary = "Read the image again and check every page",
          .gives = "verify_report",
          .successes = ok,
          .failures = change_failures,
          .run = verify_snapshot},
    route{.method = "GET",
          .pattern = "/v1/sandboxes",
          .id = "list_sandboxes",
          .summary = "The sandboxes: running microVMs",
          .gives = "[sandbox]",
          .successes = ok,
          .run = list_sandboxes},
    route{.method = "POST",
          .pattern = "/v1/sandboxes",
          .id = "create_sandboxes",
          .summary = "Start sandboxes from a snapshot: all or none",
          .takes = "create_sandboxes",
          .gives = "[sandbox]",
          .creates = true,
          .successes = created,
          .failures = change_failures,
          .run = create_sandboxes},
    route{.method = "GET",
          .pattern = "/v1/sandboxes/{id}",
          .id = "sandbox_info",
          .named = path_name::sandbox,
          .summary = "One sandbox",
          .gives = "sandbox",
          .successes = ok,
          .failures = find_failures,
          .run = sandbox_info_of},
    route{.method = "DELETE",
          .pattern = "/v1/sandboxes/{id}",
          .id = "delete_sandbox",
          .named = path_name::sandbox,
          .summary = "End a sandbox",
          .successes = nothing,
          .failures = change_failures,
          .run = delete_sandbox},
    route{.method = "GET",
          .pattern = "/v1/sandboxes/{id}/journal",
          .id = "journal",
          .named = path_name::sandbox,
          .query = journal_query,
          .summary = "What the journal guest of a sandbox reports of itself",
          .gives = "journal",
          .successes = ok,
          .failures = change_failures,
          .run = journal},
    route{.method = "POST",
          .pattern = "/v1/sandboxes/{id}/branch",
          .id = "branch_sandbox",
          .named = path_name::sandbox,
          .summary = "Branch a running sandbox into a snapshot (202: it is still being written)",
          .takes = "branch",
          .gives = "snapshot",
          .creates = true,
          .successes = branched,
          .failures = change_failures,
          .run = branch_sandbox},
    route{.method = "POST",
          .pattern = "/v1/sandboxes/{id}/exec",
          .id = "exec",
          .named = path_name::sandbox,
          .summary = "Run a program in the guest, by the agent that listens there",
          .takes = "exec",
          .gives = "exec_result",
          .successes = ok,
          .failures = change_failures,
          .run = exec},
    route{.method = "POST",
          .pattern = "/v1/sandboxes/{id}/eval",
          .id = "eval",
          .named = path_name::sandbox,
          .summary = "Evaluate code in the agent that listens in the guest",
          .takes = "eval",
          .gives = "eval_result",
          .successes = ok,
          .failures = change_failures,
          .run = eval},
    route{.method = "POST",
          .pattern = "/v1/sandboxes/{id}/ping",
          .id = "ping",
          .named = path_name::sandbox,
          .summary = "Ask the agent that listens in the guest whether it lives; answers what it says",
          .gives = "agent",
          .successes = ok,
          .failures = change_failures,
          .run = ping},
    route{.method = "GET",
          .pattern = "/v1/events",
          .id = "events",
          .summary = "Changes of sandboxes, branches and snapshots, as they happen (server-sent events)",
          .gives = "event_stream",
          .media = "text/event-stream",
          .successes = ok,
          .run = events},
    route{.method = "GET",
          .pattern = "/v1/openapi.json",
          .id = "openapi",
          .summary = "This description of the API",
          .gives = "openapi",
          .successes = ok,
          .run = openapi},
};

}  // namespace

std::span<const route> route_table() noexcept {
  return routes;
}

}  // namespace coppice
