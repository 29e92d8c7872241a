#include "daemon/check_config.hpp"

#include <unistd.h>

#include "actors/run_folder.hpp"
#include "api/tls.hpp"
#include "base/units.hpp"
#include "options/config_file.hpp"
#include "options/existing_folder.hpp"
#include "vmm/jail.hpp"
#include "vmm/memory_cgroup.hpp"

namespace coppice {
namespace {

namespace fs = std::filesystem;

error unusable(std::string what, int code = 0) {
  return {errc::invalid_argument, code, std::move(what)};
}

// That entries may be made in `folder`, or that it may itself be made.
result<void> check_writable(const std::string& name, const fs::path& wanted) {
  std::error_code failure;
  const auto folder = existing_folder(wanted);
  if (!fs::is_directory(folder, failure)) return unusable(name + ": " + folder.string() + " is no folder");
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return unusable(name + ": no right to write to " + folder.string(), errno);
  return {};
}

result<void> check_root(const daemon_settings& settings) {
  const auto root = fs::absolute(settings.root).lexically_normal();
  COPPICE_TRY(check_run_dir(root / "run"));
  return check_writable("root", root);
}

result<void> check_vmm(const std::string& vmm) {
  std::error_code failure;
  if (!fs::exists(vmm, failure)) return error{errc::not_found, ENOENT, "vmm " + vmm};
  if (!fs::is_regular_file(vmm, failure) || ::access(vmm.c_str(), X_OK) != 0) {
    return unusable("vmm: " + vmm + " is no program that may be run");
  }
  return {};
}

result<void> check_audit_log(const fs::path& log) {
  if (log.empty()) return {};
  std::error_code failure;
  if (!fs::exists(log, failure)) {
    const auto folder = fs::absolute(log).parent_path();
    if (!fs::is_directory(folder, failure)) return unusable("audit-log: " + folder.string() + " is no folder");
    return check_writable("audit-log", folder);
  }
  if (::access(log.c_str(), W_OK) != 0) return unusable("audit-log: no right to write to " + log.string(), errno);
  return {};
}

}  // namespace

result<void> check_settings(const daemon_settings& settings) {
  COPPICE_TRY(check_can_listen({settings.address.ip, 0}));  // the port may be in use: by the daemon that runs
  const auto serving = secure_options(settings);
  if (!serving.ok()) return serving.error();
  if (!settings.tls.certificate.empty()) COPPICE_TRY(server_tls(settings.tls));
  COPPICE_TRY(check_vmm(settings.vmm));
  COPPICE_TRY(check_root(settings));
  COPPICE_TRY(check_audit_log(settings.audit_log));
  const bool named =
      !settings.cgroup.empty() && settings.cgroup != "auto";  // which group "auto" is the start will tell
  if (named) COPPICE_TRY(memory_cgroups::check(settings.cgroup));
  if (!settings.jailer.empty()) COPPICE_TRY(jailer::check(settings.jailer));
  if (const auto& filter = settings.live_seccomp_filter; !filter.empty() && ::access(filter.c_str(), R_OK) != 0)
    return unusable("live-seccomp-filter: " + filter + " can't be read", errno);
  if (*parse_bytes(settings.bounce_memory) < page_size) return unusable("bounce-memory: at least a page, 4K");
  return {};
}

void print_settings(std::ostream& out, const daemon_settings& settings) {
  for (const auto& each : settings.effective) {
    const bool is_found_vmm = each.name == "vmm" && each.origin == "default";
    out << each.name << " = " << (is_found_vmm ? quoted_for_config(settings.vmm) : each.value) << "  # " << each.origin
        << '\n';
  }
}

}  // namespace coppice
