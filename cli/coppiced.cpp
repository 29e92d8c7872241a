// coppiced: the daemon's main.
#include <pthread.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <string>

#include "actors/daemon.hpp"
#include "api/server.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "cli/listen_address.hpp"
#include "cli/size_option.hpp"
#include "metrics/metrics.hpp"

namespace coppice {
namespace {

constexpr std::chrono::milliseconds answer_grace{500};  // after the control plane stopped, all answers are due at once

struct settings {
  std::string root;
  std::string listen = "127.0.0.1:8889";
  std::string vmm;
  std::string log_level = "info";
  std::string copy_rate = "0";
  std::string branch_copy_rate = "0";
  std::string bounce_memory = "256M";
};

int fail(const error& failure) {
  std::cerr << "coppiced: " << failure.message() << std::endl;
  return 1;
}

// Serves until SIGTERM or SIGINT, which the caller has blocked.
int serve(const settings& chosen, const listen_address& address, const sigset_t& signals) {
  log_to_stderr("coppiced", chosen.log_level);
  metrics registry;
  daemon_options options;
  options.root = chosen.root;
  options.vmm = chosen.vmm;
  options.engine.host_bytes_per_second = *parse_bytes(chosen.copy_rate);
  options.engine.branch_bytes_per_second = *parse_bytes(chosen.branch_copy_rate);
  options.engine.bounce_bytes = *parse_bytes(chosen.bounce_memory);
  auto plane = start_daemon(options, registry);
  if (!plane.ok()) return fail(plane.error());
  registry.build_info(COPPICE_VERSION, (*plane)->vmm().app_name + " " + (*plane)->vmm().version);
  api_server_options serving;
  serving.on_request = [&registry](const request_record& request) {
    const bool known = request.route != "none";  // label values must be few
    registry.http_request(request.route, known ? request.method : "other", static_cast<int>(request.status),
                          request.took.count());
  };
  auto server = api_server::start(address.ip, address.port, **plane, std::move(serving));
  if (!server.ok()) {
    (*plane)->stop();
    return fail(server.error());
  }
  spdlog::info("listening on http://{}", to_string({address.ip, (*server)->port()}));
  spdlog::default_logger()->flush();
  int caught = 0;
  ::sigwait(&signals, &caught);
  spdlog::info("signal {}: stopping", caught);
  (*server)->begin_stop();
  (*plane)->stop();
  (*server)->stop(answer_grace);
  spdlog::info("stopped");
  return 0;
}

std::string vmm_beside_this_program() {
  std::error_code failure;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
  const auto installed = self.parent_path() / "coppice-vmm";
  if (std::filesystem::exists(installed, failure)) return installed.string();
  const auto in_build_tree = self.parent_path().parent_path() / "vmm" / "reference" / "coppice-vmm";
  return std::filesystem::exists(in_build_tree, failure) ? in_build_tree.string() : installed.string();
}

int run(int argc, char** argv) {
  settings chosen;
  CLI::App app("Branches running microVMs: the daemon of one host.", "coppiced");
  app.footer("Example:\n  coppiced --root /var/lib/coppice --vmm /usr/local/bin/firecracker");
  app.add_option("--root", chosen.root, "Folder of the snapshots, on a disk; created if absent")->required();
  app.add_option("--listen", chosen.listen, "Address of the HTTP API; port 0 takes a free one")->capture_default_str();
  app.add_option("--vmm", chosen.vmm, "coppice-vmm or firecracker binary (default: the coppice-vmm beside coppiced)");
  app.add_option("--copy-rate", chosen.copy_rate, "Bytes per second that all copies together may write; 0: no limit")
      ->capture_default_str()
      ->check(is_size());
  app.add_option("--branch-copy-rate", chosen.branch_copy_rate, "The same for each branch")
      ->capture_default_str()
      ->check(is_size());
  app.add_option("--bounce-memory", chosen.bounce_memory,
                 "Memory that holds pages saved at faults until they are written")
      ->capture_default_str()
      ->check(is_size());
  app.add_option("--log-level", chosen.log_level, "What is logged to stderr")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err"}));
  app.set_version_flag("--version", "coppiced " COPPICE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  const auto address = parse_listen_address(chosen.listen);
  if (!address.ok()) {
    fail(address.error());
    return 2;
  }
  if (chosen.vmm.empty()) chosen.vmm = vmm_beside_this_program();
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread starts: all inherit it
  ::signal(SIGPIPE, SIG_IGN);
  return serve(chosen, *address, signals);
}

}  // namespace
}  // namespace coppice

int main(int argc, char** argv) {
  return coppice::run(argc, argv);
}
