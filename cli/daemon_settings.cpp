#include "cli/daemon_settings.hpp"

#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/size_option.hpp"

namespace coppice {
namespace {

void add_serving_options(CLI::App& app, daemon_settings& chosen) {
  app.add_option("--listen", chosen.listen, "Address of the HTTP API: IP:PORT (port 0 takes a free one) or unix:/PATH")
      ->capture_default_str();
  app.add_option(
      "--token-file", chosen.token_file,
      "Lines \"name role token\", role read or write: only who sends a token is served. Read again at SIGHUP");
  CLI::Option* certificate = app.add_option("--tls-cert", chosen.tls.certificate, "Serve HTTPS: PEM certificate chain");
  CLI::Option* key = app.add_option("--tls-key", chosen.tls.key, "PEM key of --tls-cert");
  certificate->needs(key);
  key->needs(certificate);
  app.add_option("--tls-client-ca", chosen.tls.ca, "Only serve clients with a certificate of this CA (PEM)")
      ->needs(certificate);
  app.add_flag("--insecure-listen", chosen.insecure_listen,
               "Let others reach the API without tokens and TLS: whoever can connect can do anything");
  CLI::Option* audit =
      app.add_option("--audit-log", chosen.audit_log, "Append a JSON line for each request to this file");
  app.add_option("--audit-log-bytes", chosen.audit_log_bytes, "Begin a new audit log at this size; 5 old ones are kept")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t{4096}, std::uint64_t{1} << 40))
      ->needs(audit);
  app.add_option("--allow-path", chosen.allowed_paths,
                 "Folder of kernels and drives that requests may name; repeatable (default: any, if none but local "
                 "callers without tokens are served; else none)");
}

void add_copy_options(CLI::App& app, daemon_settings& chosen) {
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
}

}  // namespace

std::variant<daemon_settings, int> parse_daemon_settings(int argc, const char* const* argv) {
  daemon_settings chosen;
  CLI::App app("Branches running microVMs: the daemon of one host.", "coppiced");
  app.footer("Example:\n  coppiced --root /var/lib/coppice --vmm /usr/local/bin/firecracker");
  app.add_option("--root", chosen.root, "Folder of the snapshots, on a disk; created if absent")->required();
  app.add_option("--vmm", chosen.vmm, "coppice-vmm or firecracker binary (default: the coppice-vmm beside coppiced)");
  app.add_option("--log-level", chosen.log_level, "What is logged to stderr")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err"}));
  app.add_option("--log-format", chosen.log_format, "human: lines to read; json: an object a line, to search")
      ->capture_default_str()
      ->check(CLI::IsMember({"human", "json"}));
  add_copy_options(app, chosen);
  add_serving_options(app, chosen);
  app.set_version_flag("--version", "coppiced " COPPICE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  auto address = parse_listen_address(chosen.listen);
  if (!address.ok()) {
    std::cerr << "coppiced: " << address.error().message() << std::endl;
    return 2;
  }
  chosen.address = *std::move(address);
  return chosen;
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
