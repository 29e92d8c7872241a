#include <unistd.h>

#include <utility>

#include "base/file.hpp"
#include "doctor/doctor_checks.hpp"
#include "options/config_file.hpp"

namespace coppice {
namespace {

constexpr const char* packaged_file = "/etc/coppice/coppiced.toml";

result<std::vector<config_entry>> read_configuration(const std::string& file) {
  const auto text = read_text_file(file);
  if (!text.ok()) return text.error();
  return parse_config(*text, file);
}

}  // namespace

doctor_options completed(doctor_options options) {
  if (options.config.empty() && ::access(packaged_file, F_OK) == 0) options.config = packaged_file;
  const std::pair<const char*, std::string*> settings[] = {{"root", &options.root},
                                                           {"vmm", &options.vmm},
                                                           {"listen", &options.listen},
                                                           {"cgroup", &options.cgroup},
                                                           {"tls-cert", &options.tls_cert}};
  if (const auto entries = read_configuration(options.config); entries.ok()) {
    for (const config_entry& entry : *entries) {
      for (const auto& [name, value] : settings) {
        if (entry.key == name && value->empty() && entry.values.size() == 1) *value = entry.values.front();
      }
    }
  }
  if (options.root.empty()) options.root = "/var/lib/coppice";
  if (options.listen.empty()) options.listen = "127.0.0.1:8889";
  return options;
}

namespace doctor {

finding check_configuration(const doctor_options& options) {
  if (options.config.empty()) return ok("none: the defaults of coppiced");
  const auto entries = read_configuration(options.config);
  if (entries.ok()) return ok(options.config + "; coppiced --config FILE --check-config checks all of it");
  return failed(entries.error().message(), "correct it, or name another with --config");
}

}  // namespace doctor
}  // namespace coppice
