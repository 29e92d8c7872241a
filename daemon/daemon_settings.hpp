// What coppiced is told by its command line, environment and configuration file, and whether that is safe to serve.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <variant>
#include <vector>

#include "api/server.hpp"
#include "daemon/setting_layers.hpp"
#include "options/listen_address.hpp"

namespace coppice {

struct daemon_settings {
  std::string root;
  std::string listen = "127.0.0.1:8889";
  listen_address address;  // what `listen` says
  std::string vmm;
  std::string log_level = "info";
  std::string log_format = "human";  // or json
  std::string copy_rate = "0";       // sizes are as parse_bytes() takes them
  std::string branch_copy_rate = "0";
  std::string bounce_memory = "256M";
  daemon_limits limits;
  client_limits clients;
  std::string cgroup;                       // empty: none; or "auto"
  std::string jailer;                       // empty: VMMs run as the daemon's user
  unsigned jail_first_uid = 1'900'000'000;  // systemd's list of users and groups has nothing there
  std::string live_seccomp_filter;          // empty: --no-seccomp for VMs that can be branched live
  std::string token_file;                   // empty: no tokens
  tls_files tls;                            // empty: no TLS
  bool insecure_listen = false;
  std::string audit_log;  // empty: none
  std::uint64_t audit_log_bytes = 64 * mib;
  std::vector<std::string> allowed_paths;
  std::string config_file;  // empty: none
  bool check_config = false;
  std::vector<effective_setting> effective;  // all of the above that may stand in a file, and where each comes from
};

// The settings; or, after printing help, a version or what is wrong, the exit code.
std::variant<daemon_settings, int> parse_daemon_settings(int argc, const char* const* argv, std::ostream& out,
                                                         std::ostream& err);

// The same once more, e.g. because the file has changed; prints nothing. Errors: invalid_argument, not_found, io.
result<daemon_settings> read_daemon_settings(int argc, const char* const* argv);

// Names of the settings that differ between the two, but for those that can change while the daemon runs.
std::vector<std::string> changes_that_need_a_restart(const daemon_settings& before, const daemon_settings& after);

// The settings that differ and can change while the daemon runs, as `after` has them: "max-branches = \"8\"".
std::vector<std::string> changes_of_limits(const daemon_settings& before, const daemon_settings& after);

// Tokens, TLS and allowed paths of the API, as the settings say. Without --allow-path any path is allowed, but only
// where none but local callers without tokens come. Errors: invalid_argument (a file that can't be used; an address
// that others can reach without tokens and TLS, unless --insecure-listen is given), io.
result<api_server_options> secure_options(const daemon_settings& settings);

}  // namespace coppice
