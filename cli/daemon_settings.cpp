#include "cli/daemon_settings.hpp"

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "cli/size_option.hpp"

namespace coppice {
namespace {

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
  app.add_option(
      "--cgroup", chosen.cgroup,
      "Folder of a cgroup v2 that is the daemon's to divide: sandboxes with a memory limit get a group in it");
  app.add_option("--log-level", chosen.log_level, "What is logged to stderr")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err"}));
  app.add_option("--log-format", chosen.log_format, "human: lines to read; json: an object a line, to search")
      ->capture_default_str()
      ->check(CLI::IsMember({"human", "json"}));
  add_copy_options(app, chosen);
  add_serving_options(app, chosen);
  app.set_version_flag("--version", "coppiced " COPPICE_VERSION)->configurable(false);
  app.footer(
      "Each may also be set in the environment (COPPICED_COPY_RATE for --copy-rate) and, except --config, in the file\n"
      "of --config (copy-rate = \"200M\"). A flag beats the environment, that beats the file.\n\n"
      "SIGHUP: the tokens, --copy-rate and --branch-copy-rate are read again; all else needs a restart.\n\n"
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure, out, err) == 0 ? 0 : 2;
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
  for (std::size_t i = 0; i < before.effective.size() && i < after.effective.size(); ++i) {
    const auto& name = before.effective[i].name;
    if (name == "copy-rate" || name == "branch-copy-rate") continue;
    if (before.effective[i].value != after.effective[i].value) names.push_back(name);
  }
  return names;
}

result<api_server_options> secure_options(const daemon_settings& settings) {
  api_server_options options;
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
