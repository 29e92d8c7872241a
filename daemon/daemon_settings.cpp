#include "daemon/daemon_settings.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>

#include "copy_engine/copy_engine.hpp"
#include "options/completion.hpp"
#include "options/size_option.hpp"

namespace coppice {
namespace {

// What SIGHUP reads again, besides the tokens.
constexpr auto limits_read_again = std::to_array<std::string_view>(
    {"copy-rate", "branch-copy-rate", "max-sandboxes", "max-branches", "max-branches-per-sandbox", "max-starts",
     "max-connections", "max-body-bytes", "max-header-bytes", "idle-timeout-ms", "body-timeout-ms", "write-timeout-ms",
     "tls-handshake-timeout-ms"});

template <class T>
void add_limit(CLI::App& app, const std::string& name, T& limit, T most, const std::string& meaning, T least = 1) {
  app.add_option(name, limit, meaning)->capture_default_str()->check(CLI::Range(least, most));
}

void add_timeout(CLI::App& app, const std::string& name, std::chrono::milliseconds& timeout,
                 const std::string& meaning) {
  const auto set = [&timeout](const std::uint64_t& given) { timeout = std::chrono::milliseconds(given); };
  app.add_option_function<std::uint64_t>(name, set, meaning)
      ->default_str(std::to_string(timeout.count()))
      ->check(CLI::Range(std::uint64_t{100}, std::uint64_t{3'600'000}));
}

void add_limit_options(CLI::App& app, daemon_settings& chosen) {
  auto& host = chosen.limits;
  auto& clients = chosen.clients;
  add_limit(app, "--max-sandboxes", host.sandboxes, 100'000U, "Sandboxes that there may be");
  add_limit(app, "--max-branches", host.branches, 1'000U, "Branches in flight, of all sandboxes");
  add_limit(app, "--max-branches-per-sandbox", host.branches_per_parent, copy_engine_options{}.max_epochs_per_vm,
            "Branches in flight of one sandbox");
  add_limit(app, "--max-starts", host.parallel_starts, 1'000U, "VMs that start at a time; the others wait");
  add_limit(app, "--max-connections", clients.connections, std::size_t{100'000}, "Connections of clients at a time");
  add_limit(app, "--max-body-bytes", clients.body_bytes, std::size_t{gib}, "Body of a request", std::size_t{kib});
  add_limit(app, "--max-header-bytes", clients.header_bytes, std::size_t{mib}, "Header of a request", std::size_t{kib});
  add_timeout(app, "--idle-timeout-ms", clients.idle_timeout,
              "A client's time to send a whole header, and to stay silent between requests");
  add_timeout(app, "--body-timeout-ms", clients.body_timeout, "A client's time to send a whole body");
  add_timeout(app, "--write-timeout-ms", clients.write_timeout, "A client's time to read an answer");
  add_timeout(app, "--tls-handshake-timeout-ms", clients.handshake_timeout, "A client's time for the TLS handshake");
}

void add_serving_options(CLI::App& app, daemon_settings& chosen) {
  app.add_option("--listen", chosen.listen, "Address of the HTTP API: IP:PORT (port 0 takes a free one) or unix:/PATH")
      ->capture_default_str();
  app.add_option(
      "--token-file", chosen.token_file,
      "Lines \"name role token\", role read or write: only who sends a token is served. Read again at SIGHUP");
  app.add_option("--tls-cert", chosen.tls.certificate, "Serve HTTPS: PEM certificate chain");
  app.add_option("--tls-key", chosen.tls.key, "PEM key of --tls-cert");
  app.add_option("--tls-client-ca", chosen.tls.ca, "Only serve clients with a certificate of this CA (PEM)");
  app.add_flag("--insecure-listen", chosen.insecure_listen,
               "Let others reach the API without tokens and TLS: whoever can connect can do anything");
  app.add_option("--audit-log", chosen.audit_log, "Append a JSON line for each request to this file");
  app.add_option("--audit-log-bytes", chosen.audit_log_bytes, "Begin a new audit log at this size; 5 old ones are kept")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t{4096}, std::uint64_t{1} << 40));
  app.add_option("--allow-path", chosen.allowed_paths,
                 "Folder of kernels and drives that requests may name; repeatable (default: any, if none but local "
                 "callers without tokens are served; else none)");
}

void add_copy_options(CLI::App& app, daemon_settings& chosen) {
  app.add_option("--copy-rate", chosen.copy_rate,
                 "Bytes per second that all copies together may write; 0: no limit. Read again at SIGHUP")
      ->capture_default_str()
      ->check(is_size());
  app.add_option("--branch-copy-rate", chosen.branch_copy_rate, "The same for each branch")
      ->capture_default_str()
      ->check(is_size());
  app.add_option("--bounce-memory", chosen.bounce_memory,
                 "Memory that holds pages saved at faults until they are written")
      ->capture_default_str()
      ->check(is_size());
}

void add_options(CLI::App& app, daemon_settings& chosen) {
  app.add_option("--config", chosen.config_file, "File with settings; deploy/config/coppiced.toml has all")
      ->configurable(false);
  app.add_flag("--check-config", chosen.check_config, "Check the configuration, print it, and end")
      ->configurable(false);
  app.add_option("--root", chosen.root, "Folder of the snapshots, on a disk; created if absent. Must be set");
  app.add_option("--vmm", chosen.vmm, "coppice-vmm or firecracker binary (default: the coppice-vmm beside coppiced)");
  app.add_option("--cgroup", chosen.cgroup,
                 "Folder of a cgroup v2 that is the daemon's to divide: sandboxes with a memory limit get a group in "
                 "it. auto: the "
                 "one that coppiced runs in, if it can be divided");
  app.add_option("--jailer", chosen.jailer,
                 "Firecracker's jailer: each VMM runs in a chroot of its own as a user of its own; needs root");
  app.add_option("--jail-first-uid", chosen.jail_first_uid,
                 "With --jailer: VMMs are users and groups from this number on, which nobody else has")
      ->capture_default_str()
      ->check(CLI::Range(1U, 4'000'000'000U));
  app.add_option(
      "--live-seccomp-filter", chosen.live_seccomp_filter,
      "Compiled seccomp filter of a Firecracker that is to be branched live, whose own forbids that (default: it "
      "runs with --no-seccomp)");
  app.add_option("--log-level", chosen.log_level, "What is logged to stderr")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err"}));
  app.add_option("--log-format", chosen.log_format, "human: lines to read; json: an object a line, to search")
      ->capture_default_str()
      ->check(CLI::IsMember({"human", "json"}));
  add_copy_options(app, chosen);
  add_limit_options(app, chosen);
  add_serving_options(app, chosen);
  app.set_version_flag("--version", "coppiced " COPPICE_VERSION)->configurable(false);
  app.footer(
      "Each may also be set in the environment (COPPICED_COPY_RATE for --copy-rate) and, except --config, in the file\n"
      "of --config (copy-rate = \"200M\"). A flag beats the environment, that beats the file.\n\n"
      "SIGHUP: the tokens, the two copy rates, --max-... and --...-timeout-ms are read again; all else needs a\n"
      "restart.\n\n"
      "Example:\n  coppiced --root /var/lib/coppice --vmm /usr/local/bin/firecracker");
}

error wrong(std::string what) {
  return {errc::invalid_argument, 0, std::move(what)};
}

result<void> check_combination(const daemon_settings& chosen) {
  if (chosen.root.empty()) {
    return wrong("root is not set: give --root, COPPICED_ROOT, or root in the file of --config");
  }
  if (chosen.tls.certificate.empty() != chosen.tls.key.empty()) return wrong("tls-cert and tls-key need each other");
  if (!chosen.tls.ca.empty() && chosen.tls.certificate.empty()) return wrong("tls-client-ca needs tls-cert");
  return {};
}

// The settings that `after` has another value of, of those that are read again or of the others.
std::vector<effective_setting> changes(const daemon_settings& before, const daemon_settings& after, bool read_again) {
  std::vector<effective_setting> changed;
  for (std::size_t i = 0; i < before.effective.size() && i < after.effective.size(); ++i) {
    const auto& now = after.effective[i];
    const bool is_read_again = std::ranges::find(limits_read_again, now.name) != limits_read_again.end();
    if (is_read_again == read_again && before.effective[i].value != now.value) changed.push_back(now);
  }
  return changed;
}

// Adds to `chosen`, which the flags of `app` have been stored in, what environment and file say.
result<void> read_lower_layers(CLI::App& app, daemon_settings& chosen) {
  setting_layers layers(app);
  COPPICE_TRY(layers.apply_environment());
  if (const char* const file = std::getenv("COPPICED_CONFIG"); file != nullptr && chosen.config_file.empty()) {
    chosen.config_file = file;
  }
  if (!chosen.config_file.empty()) COPPICE_TRY(layers.apply_file(chosen.config_file));
  COPPICE_TRY(check_combination(chosen));
  auto address = parse_listen_address(chosen.listen);
  if (!address.ok()) return std::move(address).error();
  chosen.address = *std::move(address);
  chosen.effective = layers.effective();
  return {};
}

}  // namespace

std::variant<daemon_settings, int> parse_daemon_settings(int argc, const char* const* argv, std::ostream& out,
                                                         std::ostream& err) {
  daemon_settings chosen;
  CLI::App app("Branches running microVMs: the daemon of one host.", "coppiced");
  add_options(app, chosen);
  std::string shell;
  app.add_option("--completion", shell, "Print a completion script for a shell, and end")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->configurable(false);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure, out, err) == 0 ? 0 : 2;
  }
  if (!shell.empty()) {
    out << completion_script(app, shell);
    return 0;
  }
  if (const auto read = read_lower_layers(app, chosen); !read.ok()) {
    err << "coppiced: " << read.error().message() << std::endl;
    return 2;
  }
  return chosen;
}

result<daemon_settings> read_daemon_settings(int argc, const char* const* argv) {
  daemon_settings chosen;
  CLI::App app("", "coppiced");
  add_options(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return wrong(failure.what());
  }
  COPPICE_TRY(read_lower_layers(app, chosen));
  return chosen;
}

std::vector<std::string> changes_that_need_a_restart(const daemon_settings& before, const daemon_settings& after) {
  std::vector<std::string> names;
  for (const auto& each : changes(before, after, false)) names.push_back(each.name);
  return names;
}

std::vector<std::string> changes_of_limits(const daemon_settings& before, const daemon_settings& after) {
  std::vector<std::string> settings;
  for (const auto& each : changes(before, after, true)) settings.push_back(each.name + " = " + each.value);
  return settings;
}

result<api_server_options> secure_options(const daemon_settings& settings) {
  api_server_options options;
  options.limits = settings.clients;
  const bool local = is_local(settings.address);
  const bool tokens = !settings.token_file.empty();
  const bool tls = !settings.tls.certificate.empty();
  if (!local && !(tokens && tls) && !settings.insecure_listen) {
    return error{errc::invalid_argument, 0,
                 "others can reach " + to_string(settings.address) +
                     ": give --token-file, --tls-cert and --tls-key, or listen on 127.0.0.1 or unix:/PATH "
                     "(--insecure-listen serves everybody)"};
  }
  if (tokens) {
    auto loaded = token_set::load(settings.token_file);
    if (!loaded.ok()) return std::move(loaded).error();
    options.tokens = std::make_shared<const token_set>(*std::move(loaded));
  }
  if (tls) options.tls = settings.tls;
  options.refuses_web_pages = local && !tokens && !settings.address.ip.starts_with("unix:");
  if (!settings.allowed_paths.empty() || tokens || !local) {
    auto allowed = allowed_paths::below({settings.allowed_paths.begin(), settings.allowed_paths.end()});
    if (!allowed.ok()) return std::move(allowed).error();
    options.paths = *std::move(allowed);
  }
  return options;
}

}  // namespace coppice
