// coppiced: the daemon's main.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "actors/daemon.hpp"
#include "api/audit_log.hpp"
#include "api/server.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "daemon/check_config.hpp"
#include "daemon/daemon_settings.hpp"
#include "daemon/divisible_cgroup.hpp"
#include "daemon/service_notifier.hpp"
#include "metrics/metrics.hpp"
#include "options/vmm_path.hpp"
#include "vmm/jail.hpp"

namespace coppice {
namespace {

constexpr std::chrono::milliseconds answer_grace{500};  // after the control plane stopped, all answers are due at once

int fail(const error& failure) {
  std::cerr << "coppiced: " << failure.message() << std::endl;
  return 1;
}

std::string logged(spdlog::level::level_enum level, std::string what) {
  spdlog::log(level, "{}", what);
  return what;
}

// From the next request on the file's tokens count; if it can't be used, the old ones go on. Says what happened, as it
// was logged.
std::string reload_tokens(const daemon_settings& chosen, api_server& server) {
  if (chosen.token_file.empty()) return "no tokens";
  auto loaded = token_set::load(chosen.token_file);
  if (!loaded.ok()) return logged(spdlog::level::err, "the old tokens stay: " + loaded.error().message());
  const std::string done = std::to_string(loaded->size()) + " tokens read again from " + chosen.token_file;
  server.set_tokens(std::make_shared<const token_set>(*std::move(loaded)));
  return logged(spdlog::level::info, done);
}

copy_rates rates_of(const daemon_settings& chosen) {
  return {*parse_bytes(chosen.copy_rate), *parse_bytes(chosen.branch_copy_rate)};
}

// What a reload needs: the settings that the daemon started with, and where they came from.
struct configuration {
  const daemon_settings& started_with;
  int argc;
  char** argv;
};

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text.append(text.empty() ? "" : ", ").append(part);
  return text;
}

// From now on the limits of the file and the environment count; if the file can't be used, the old ones go on.
// `before`: as they were read last.
std::string reload_limits(const configuration& from, daemon_settings& before, control_plane& plane,
                          api_server& server) {
  auto now = read_daemon_settings(from.argc, from.argv);
  if (!now.ok()) return logged(spdlog::level::err, "the old limits stay: " + now.error().message());
  plane.set_copy_rates(rates_of(*now));
  plane.set_limits(now->limits);
  server.set_limits(now->clients);
  const auto changed = joined(changes_of_limits(before, *now));
  for (const auto& name : changes_that_need_a_restart(from.started_with, *now)) {
    spdlog::warn("{} has changed: that needs a restart", name);
  }
  before = *std::move(now);
  return logged(spdlog::level::info, "limits read again: " + (changed.empty() ? "none has changed" : changed));
}

void record(audit_log* audit, const audit_event& event) {
  if (audit != nullptr) audit->record(event);
}

// Until SIGTERM or SIGINT. The caller has blocked `signals`.
void wait_for_the_end(const configuration& from, control_plane& plane, api_server& server, audit_log* audit,
                      const sigset_t& signals) {
  daemon_settings in_force = from.started_with;
  for (;;) {
    int caught = 0;
    ::sigwait(&signals, &caught);
    if (caught != SIGHUP) {
      record(audit, {"stop", {}, "signal " + std::to_string(caught)});
      return spdlog::info("signal {}: stopping", caught);
    }
    std::string outcome = reload_tokens(from.started_with, server);
    outcome.append("; ").append(reload_limits(from, in_force, plane, server));
    record(audit, {"reload", {}, outcome});
  }
}

// Counts connections, and records what befell those that were refused. Both outlive the server.
std::function<void(const connection_record&)> connection_observer(metrics& registry, audit_log* audit) {
  return [&registry, audit](const connection_record& connection) {
    using change = connection_record::change;
    registry.set_http_connections(connection.open);
    if (connection.what == change::refused) registry.refused_connection("limit");
    if (connection.what == change::tls_failed) registry.refused_connection("tls");
    if (audit == nullptr) return;
    if (connection.what == change::refused)
      audit->record(audit_event{"connection_refused", connection.peer, "max-connections"});
    if (connection.what == change::tls_failed)
      audit->record(audit_event{"tls_failed", connection.peer, connection.reason});
  };
}

// Where memory limits of VMs are made; empty: nowhere. Without a usable group "auto" is a daemon without limits.
std::filesystem::path cgroup_of(const daemon_settings& chosen) {
  if (chosen.cgroup != "auto") return chosen.cgroup;
  auto own = divisible_cgroup();
  if (own.ok()) {
    spdlog::info("memory limits of sandboxes: in {}", own->string());
    return *std::move(own);
  }
  spdlog::info("no memory limits of sandboxes: {}", own.error().message());
  return {};
}

// Counts each request, and records it if there is an audit log. Both outlive the server.
std::function<void(const request_record&)> observer(metrics& registry, audit_log* audit) {
  return [&registry, audit](const request_record& request) {
    const bool known = request.route != "none";  // label values must be few
    registry.http_request(request.route, known ? request.method : "other", static_cast<int>(request.status),
                          request.took.count());
    if (request.route.ends_with("/exec") && request.status == 200) registry.exec_ended(request.took);
    if (audit == nullptr) return;
    audit->record(request);
    registry.set_dropped_audit_lines_total(audit->dropped());
  };
}

std::string shown_address(const daemon_settings& chosen, const api_server& server) {
  if (server.address().starts_with("unix:")) return server.address();
  return (chosen.tls.certificate.empty() ? "http://" : "https://") + to_string({chosen.address.ip, server.port()});
}

// Serves until SIGTERM or SIGINT, which the caller has blocked.
int serve(const configuration& from, const service_environment& environment, const sigset_t& signals) {
  const daemon_settings& chosen = from.started_with;
  log_to_stderr("coppiced", chosen.log_level, chosen.log_format == "json" ? log_format::json : log_format::human);
  auto serving = secure_options(chosen);
  if (!serving.ok()) return fail(serving.error());
  std::unique_ptr<audit_log> audit;
  if (!chosen.audit_log.empty()) {
    auto opened = audit_log::open(chosen.audit_log, chosen.audit_log_bytes);
    if (!opened.ok()) return fail(opened.error());
    audit = *std::move(opened);
  }
  metrics registry;
  daemon_options options;
  options.root = chosen.root;
  options.vmm = chosen.vmm;
  options.cgroup = cgroup_of(chosen);
  options.jailer = chosen.jailer;
  options.jail_first_uid = chosen.jail_first_uid;
  options.live_seccomp_filter = chosen.live_seccomp_filter;
  options.engine.rates = rates_of(chosen);
  options.limits = chosen.limits;
  options.engine.bounce_bytes = *parse_bytes(chosen.bounce_memory);
  auto plane = start_daemon(options, registry);
  if (!plane.ok()) return fail(plane.error());
  registry.build_info(COPPICE_VERSION, (*plane)->vmm().app_name + " " + (*plane)->vmm().version);
  serving->on_request = observer(registry, audit.get());
  serving->on_connection = connection_observer(registry, audit.get());
  if (audit) serving->may_change = [log = audit.get()] { return log->has_room(); };
  auto server = api_server::start(chosen.address.ip, chosen.address.port, **plane, *std::move(serving));
  if (!server.ok()) {
    (*plane)->stop();
    return fail(server.error());
  }
  if (chosen.insecure_listen) spdlog::warn("--insecure-listen: whoever can connect can do anything");
  const std::string listening = "listening on " + shown_address(chosen, **server);
  record(audit.get(), {"start", {}, "coppiced " COPPICE_VERSION ", " + listening});
  spdlog::info(listening);
  spdlog::default_logger()->flush();
  service_notifier notifier(environment);
  notifier.ready(listening, **plane, **server);
  wait_for_the_end(from, **plane, **server, audit.get(), signals);
  notifier.stopping();
  (*server)->begin_stop();
  (*plane)->stop();
  (*server)->stop(answer_grace);
  spdlog::info("stopped");
  return 0;
}

// Connections, and what each VM needs, are more than the usual 1024: a full house of clients must not keep VMs from
// being started.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int check(const daemon_settings& chosen) {
  const auto checked = check_settings(chosen);
  if (!checked.ok()) {
    fail(checked.error());
    return 2;
  }
  print_settings(std::cout, chosen);
  std::cout << "ok" << std::endl;
  return 0;
}

int run(int argc, char** argv) {
  // Not for people: the daemon starts itself so, once.
  if (argc == 3 && std::string_view(argv[1]) == "--guard-jails") return guard_jails(argv[2]) ? 0 : 1;
  auto parsed = parse_daemon_settings(argc, argv, std::cout, std::cerr);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  auto chosen = std::get<daemon_settings>(std::move(parsed));
  if (chosen.vmm.empty()) chosen.vmm = vmm_beside_this_program();
  if (chosen.check_config) return check(chosen);
  raise_descriptor_limit();
  const auto environment = service_environment::take();
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread starts: all inherit it
  ::signal(SIGPIPE, SIG_IGN);
  return serve({chosen, argc, argv}, environment, signals);
}

}  // namespace
}  // namespace coppice

int main(int argc, char** argv) {
  return coppice::run(argc, argv);
}
