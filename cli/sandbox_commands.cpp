#include "cli/sandbox_commands.hpp"

#include "options/table.hpp"

namespace coppice {

using nlohmann::json;

namespace {

void print_sandboxes(std::ostream& out, const json& list) {
  std::vector<std::vector<std::string>> rows = {
      {"ID", "SNAPSHOT", "STATE", "PID", "BRANCHES", "MEMORY", "VCPUS", "BACKING", "AGE"}};
  for (const json& item : list) {
    rows.push_back({shown(item, "id"), shown(item, "snapshot_tag"), shown(item, "state"), shown(item, "pid"),
                    shown(item, "branch_count"), shown_bytes(item, "memory_bytes"), shown(item, "vcpus"),
                    shown(item, "backing"), age_since(number(item, "created_at_unix"))});
  }
  print_table(out, rows);
}

}  // namespace

int create_sandboxes(const command_context& context, const sandbox_create_arguments& arguments) {
  json body = {{"snapshot_tag", arguments.tag}, {"n", arguments.n}};
  if (arguments.network_namespaces) body["per_child_netns"] = true;
  if (arguments.memory_limit_mib > 0) body["memory_limit_mib"] = arguments.memory_limit_mib;
  const auto answer = patient(context).post("/v1/sandboxes", body);
  if (answer.ok() && arguments.ids_only) {
    print_column(context.out, *answer, "id");
    return exit_ok;
  }
  return finish(context, answer, print_sandboxes);
}

int list_sandboxes(const command_context& context) {
  return finish(context, context.client.get("/v1/sandboxes"), print_sandboxes);
}

int list_sandbox_ids(const command_context& context) {
  const auto answer = context.client.get("/v1/sandboxes");
  if (!answer.ok()) return report_failure(context, answer.error());
  print_column(context.out, *answer, "id");
  return exit_ok;
}

int show_sandbox(const command_context& context, const std::string& id) {
  return finish(context, context.client.get(sandbox_path(id)),
                [](std::ostream& out, const json& value) { print_fields(out, value); });
}

int remove_sandboxes(const command_context& context, const std::vector<std::string>& ids) {
  return remove_each(context, ids, sandbox_path);
}

}  // namespace coppice
