#include "cli/snapshot_commands.hpp"

#include <filesystem>

#include "options/table.hpp"

namespace coppice {

using nlohmann::json;

namespace {

// The daemon reads it, maybe in another folder.
std::string absolute_path(const std::string& file) {
  return std::filesystem::absolute(file).lexically_normal().string();
}

void print_snapshots(std::ostream& out, const json& list) {
  std::vector<std::vector<std::string>> rows = {
      {"TAG", "STATUS", "BOOTABLE", "MODE", "BRANCHED FROM", "PAUSE MS", "MEMORY", "AGE"}};
  for (const json& item : list) {
    rows.push_back({shown(item, "tag"), shown(item, "status"), shown(item, "bootable"), shown(item, "mode"),
                    shown(item, "branched_from"), shown(item, "pause_ms"), shown_bytes(item, "memory_bytes"),
                    age_since(number(item, "created_at_unix"))});
  }
  print_table(out, rows);
}

void print_verification(std::ostream& out, const json& report) {
  const bool ok = report.value("ok", false);
  out << shown(report, "tag") << ": " << (ok ? "ok" : "BAD") << ", " << number(report, "chunks") << " chunks, "
      << number(report, "bad_chunks") << " bad; vmstate " << (report.value("vmstate_ok", false) ? "ok" : "BAD") << '\n';
  if (!report.value("is_journal", false)) return;
  out << "journal: " << number(report, "journal_pages") << " pages at step " << number(report, "journal_steps") << "; "
      << number(report, "future_pages") << " future, " << number(report, "lost_pages") << " lost, "
      << number(report, "torn_pages") << " torn, " << number(report, "gaps") << " gaps\n";
}

}  // namespace

int finish_snapshot(const command_context& context, const result<json>& answer, bool tag_only) {
  if (answer.ok() && tag_only) {
    context.out << shown(*answer, "tag") << '\n';
    return exit_ok;
  }
  return finish(context, answer,
                [](std::ostream& out, const json& made) { print_snapshots(out, json::array({made})); });
}

int create_snapshot(const command_context& context, const snapshot_create_arguments& arguments) {
  json body = {{"tag", arguments.tag},
               {"kernel", absolute_path(arguments.kernel)},
               {"memory_bytes", arguments.memory_bytes},
               {"vcpus", arguments.vcpus}};
  if (!arguments.boot_args.empty()) body["boot_args"] = arguments.boot_args;
  if (!arguments.initrd.empty()) body["initrd"] = absolute_path(arguments.initrd);
  if (!arguments.rootfs.empty()) body["rootfs"] = absolute_path(arguments.rootfs);
  if (arguments.network) body["network"] = true;
  if (arguments.boot_time_ms) body["boot_time_ms"] = *arguments.boot_time_ms;
  const auto answer = patient(context).post("/v1/snapshots", body);
  return finish_snapshot(context, answer, arguments.tag_only);
}

int list_snapshots(const command_context& context) {
  return finish(context, context.client.get("/v1/snapshots"), print_snapshots);
}

int list_snapshot_tags(const command_context& context) {
  const auto answer = context.client.get("/v1/snapshots");
  if (!answer.ok()) return report_failure(context, answer.error());
  print_column(context.out, *answer, "tag");
  return exit_ok;
}

int show_snapshot(const command_context& context, const std::string& tag) {
  return finish(context, context.client.get(snapshot_path(tag) + "/info"),
                [](std::ostream& out, const json& value) { print_fields(out, value); });
}

int verify_snapshot(const command_context& context, const std::string& tag) {
  const auto answer = patient(context).post(snapshot_path(tag) + "/verify", json::object());
  const int code = finish(context, answer, print_verification);
  return code == exit_ok && !answer->value("ok", false) ? exit_bad_data : code;
}

int remove_snapshots(const command_context& context, const std::vector<std::string>& tags, bool cascade) {
  return remove_each(context, tags,
                     [&](const std::string& tag) { return snapshot_path(tag) + (cascade ? "?cascade=true" : ""); });
}

}  // namespace coppice
