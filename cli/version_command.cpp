#include "cli/version_command.hpp"

#include <vector>

#include "options/table.hpp"

namespace coppice {

using nlohmann::json;

namespace {

std::string branches_of(const json& vmm) {
  if (vmm.value("live", false)) return "branches live, full and diff";
  std::string lacking;
  for (const json& each : vmm.value("missing_for_live", json::array())) {
    lacking += (lacking.empty() ? "" : ", ") + (each.is_string() ? each.get<std::string>() : each.dump());
  }
  return "branches full and diff; for live it lacks " + lacking;
}

void print_versions(std::ostream& out, const std::string& url, const json& daemon) {
  std::vector<std::vector<std::string>> rows = {{"coppice", COPPICE_VERSION}};
  if (!daemon.is_null()) {
    const json vmm = daemon.value("vmm", json::object());
    rows.push_back({"coppiced", shown(daemon, "version"), "at " + url + ", API " + shown(daemon, "api")});
    rows.push_back({shown(vmm, "name"), shown(vmm, "version"), branches_of(vmm)});
  }
  print_table(out, rows);
}

}  // namespace

int show_version(const command_context& context) {
  const auto daemon = context.client.get("/version");
  const json said = daemon.ok() ? *daemon : json(nullptr);
  if (context.json) {
    print_json(context.out, {{"client", {{"name", "coppice"}, {"version", COPPICE_VERSION}}}, {"daemon", said}});
  } else {
    print_versions(context.out, context.client.url(), said);
  }
  return daemon.ok() ? exit_ok : report_failure(context, daemon.error());
}

}  // namespace coppice
