#include "cli/commands.hpp"

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/units.hpp"
#include "cli/branch_trace.hpp"
#include "options/exit_codes.hpp"
#include "options/table.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using row = std::vector<std::string>;

constexpr std::chrono::milliseconds branch_poll_interval{100};
constexpr std::chrono::seconds exec_grace{30};  // for the daemon to say that the guest's agent gave no answer

// A field as a person should read it; "-" if it is absent or null.
std::string shown(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "-";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_boolean()) return found->get<bool>() ? "yes" : "no";
  return found->dump();
}

std::uint64_t number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<std::uint64_t>() : 0;
}

std::string shown_bytes(const json& object, const char* name) {
  return object.contains(name) ? format_bytes(number(object, name)) : "-";
}

void print_json(std::ostream& out, const json& value) {
  out << value.dump(2, ' ', false, json::error_handler_t::replace) << '\n';
}

void print_snapshots(std::ostream& out, const json& list) {
  std::vector<row> rows = {{"TAG", "STATUS", "BOOTABLE", "MODE", "BRANCHED FROM", "PAUSE MS", "MEMORY", "AGE"}};
  for (const json& item : list) {
    rows.push_back({shown(item, "tag"), shown(item, "status"), shown(item, "bootable"), shown(item, "mode"),
                    shown(item, "branched_from"), shown(item, "pause_ms"), shown_bytes(item, "memory_bytes"),
                    age_since(number(item, "created_at_unix"))});
  }
  print_table(out, rows);
}

void print_sandboxes(std::ostream& out, const json& list) {
  std::vector<row> rows = {{"ID", "SNAPSHOT", "STATE", "PID", "BRANCHES", "MEMORY", "VCPUS", "BACKING", "AGE"}};
  for (const json& item : list) {
    rows.push_back({shown(item, "id"), shown(item, "snapshot_tag"), shown(item, "state"), shown(item, "pid"),
                    shown(item, "branch_count"), shown_bytes(item, "memory_bytes"), shown(item, "vcpus"),
                    shown(item, "backing"), age_since(number(item, "created_at_unix"))});
  }
  print_table(out, rows);
}

// One field a line, objects within indented.
void print_fields(std::ostream& out, const json& object, const std::string& indent = "") {
  std::vector<row> rows;
  for (const auto& item : object.items()) {
    if (!item.value().is_object()) rows.push_back({indent + item.key(), shown(object, item.key().c_str())});
  }
  print_table(out, rows);
  for (const auto& item : object.items()) {
    if (!item.value().is_object()) continue;
    out << indent << item.key() << '\n';
    print_fields(out, item.value(), indent + "  ");
  }
}

// Prints what the server answered, or reports the failure.
template <class Print>
int finish(const command_context& context, const result<json>& answer, Print print) {
  if (!answer.ok()) return report_failure(context.err, answer.error());
  if (context.json) {
    print_json(context.out, *answer);
  } else {
    print(context.out, *answer);
  }
  return exit_ok;
}

int finish_removal(const command_context& context, const result<json>& answer, const std::string& name) {
  if (!answer.ok()) return report_failure(context.err, answer.error());
  if (!context.json) context.out << "removed " << name << '\n';
  return exit_ok;
}

void print_branch(std::ostream& out, const json& branch) {
  print_snapshots(out, json::array({branch}));
}

int list_field(const command_context& context, const char* list, const char* field) {
  const auto answer = context.client.get(list);
  if (!answer.ok()) return report_failure(context.err, answer.error());
  for (const json& item : *answer) context.out << shown(item, field) << '\n';
  return exit_ok;
}

std::string snapshot_path(const std::string& tag) {
  return "/v1/snapshots/" + path_segment(tag);
}
std::string sandbox_path(const std::string& id) {
  return "/v1/sandboxes/" + path_segment(id);
}

// For what reads or writes whole images, which takes minutes for large ones: the daemon ends it before.
api_client patient(const command_context& context) {
  api_client client = context.client;
  client.set_timeout(std::chrono::minutes(31));
  return client;
}

void show_progress(const command_context& context, const json& branch) {
  if (!context.progress) return;
  const json progress = branch.value("progress", json::object());
  const auto total = number(progress, "total_pages") * page_size;
  const auto copied = number(progress, "copied_pages") * page_size;
  context.err << "\rcopying " << shown(branch, "tag") << ": " << format_bytes(copied) << " of " << format_bytes(total)
              << "   " << std::flush;
}

copy_sample sample_of(const json& branch, std::chrono::steady_clock::time_point asked) {
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - asked);
  return {since, number(branch.value("progress", json::object()), "copied_pages") * page_size};
}

// Polls until the snapshot is no longer being written: it is ready then, or failed. An error if it vanished.
result<json> wait_until_written(const command_context& context, json branch,
                                std::chrono::steady_clock::time_point asked, std::vector<copy_sample>& samples) {
  const std::string path = snapshot_path(shown(branch, "tag")) + "/info";
  while (shown(branch, "status") == "writing") {
    show_progress(context, branch);
    samples.push_back(sample_of(branch, asked));
    std::this_thread::sleep_for(branch_poll_interval);
    auto next = context.client.get(path);
    if (!next.ok()) return std::move(next).error();
    branch = *std::move(next);
  }
  if (context.progress) context.err << '\r' << std::string(72, ' ') << '\r' << std::flush;
  samples.push_back(sample_of(branch, asked));
  return branch;
}

// Of a branch that was asked for with --trace; adds to `code` what went wrong here.
int finish_trace(const command_context& context, const branch_arguments& arguments, const result<json>& branch,
                 const std::vector<copy_sample>& samples, int code) {
  if (arguments.trace_file.empty()) return code;
  if (!branch.ok()) {
    context.err << "coppice: no trace is written: the daemon tells nothing of this branch\n";
    return code;
  }
  const auto written = write_branch_trace(arguments.trace_file, *branch, samples);
  if (written.ok()) return code;
  const int failed = report_failure(context.err, written.error());
  return code == exit_ok ? failed : code;
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

int report_failure(std::ostream& err, const error& failure) {
  err << "coppice: " << failure.message() << '\n';
  return exit_code_of(failure.code);
}

int list_snapshots(const command_context& context) {
  return finish(context, context.client.get("/v1/snapshots"), print_snapshots);
}

int list_snapshot_tags(const command_context& context) {
  return list_field(context, "/v1/snapshots", "tag");
}

int show_snapshot(const command_context& context, const std::string& tag) {
  return finish(context, context.client.get(snapshot_path(tag) + "/info"),
                [](std::ostream& out, const json& value) { print_fields(out, value); });
}

int create_snapshot(const command_context& context, const snapshot_create_arguments& arguments) {
  json body = {{"tag", arguments.tag},
               {"kernel", std::filesystem::absolute(arguments.kernel).lexically_normal().string()},
               {"memory_bytes", arguments.memory_bytes},
               {"vcpus", arguments.vcpus}};
  if (!arguments.boot_args.empty()) body["boot_args"] = arguments.boot_args;
  if (!arguments.rootfs.empty()) {
    body["rootfs"] = std::filesystem::absolute(arguments.rootfs).lexically_normal().string();
  }
  if (arguments.network) body["network"] = true;
  if (arguments.boot_time_ms) body["boot_time_ms"] = *arguments.boot_time_ms;
  return finish(context, context.client.post("/v1/snapshots", body), print_branch);
}

int verify_snapshot(const command_context& context, const std::string& tag) {
  const auto answer = patient(context).post(snapshot_path(tag) + "/verify", json::object());
  const int code = finish(context, answer, print_verification);
  return code == exit_ok && !answer->value("ok", false) ? exit_bad_data : code;
}

int remove_snapshot(const command_context& context, const std::string& tag) {
  return finish_removal(context, context.client.remove(snapshot_path(tag)), tag);
}

int list_sandboxes(const command_context& context) {
  return finish(context, context.client.get("/v1/sandboxes"), print_sandboxes);
}

int list_sandbox_ids(const command_context& context) {
  return list_field(context, "/v1/sandboxes", "id");
}

int show_sandbox(const command_context& context, const std::string& id) {
  return finish(context, context.client.get(sandbox_path(id)),
                [](std::ostream& out, const json& value) { print_fields(out, value); });
}

int create_sandboxes(const command_context& context, const sandbox_create_arguments& arguments) {
  json body = {{"snapshot_tag", arguments.tag}, {"n", arguments.n}};
  if (arguments.network_namespaces) body["per_child_netns"] = true;
  if (arguments.memory_limit_mib > 0) body["memory_limit_mib"] = arguments.memory_limit_mib;
  return finish(context, patient(context).post("/v1/sandboxes", body), print_sandboxes);
}

int remove_sandbox(const command_context& context, const std::string& id) {
  return finish_removal(context, context.client.remove(sandbox_path(id)), id);
}

int exec_in_sandbox(const command_context& context, const exec_arguments& arguments) {
  api_client client = context.client;
  client.set_timeout(std::chrono::seconds(arguments.timeout_seconds) + exec_grace);
  const auto answer = client.post(sandbox_path(arguments.id) + "/exec",
                                  {{"args", arguments.program}, {"timeout_secs", arguments.timeout_seconds}});
  const int code = finish(context, answer, [&](std::ostream& out, const json& said) {
    out << said.value("stdout", "") << std::flush;
    context.err << said.value("stderr", "") << std::flush;
  });
  return answer.ok() ? static_cast<int>(answer->value("exit_code", 1)) & 0xff : code;
}

int branch_sandbox(const command_context& context, const branch_arguments& arguments) {
  // A live branch is posted without waiting even where we wait, so that its progress can be shown.
  const bool poll = arguments.wait && arguments.mode == "live";
  json body = {{"mode", arguments.mode}, {"wait", arguments.wait && !poll}};
  if (!arguments.tag.empty()) body["tag"] = arguments.tag;
  const auto asked = std::chrono::steady_clock::now();
  std::vector<copy_sample> samples;
  auto answer = patient(context).post(sandbox_path(arguments.id) + "/branch", body);
  if (answer.ok() && poll) answer = wait_until_written(context, *std::move(answer), asked, samples);
  const bool failed = answer.ok() && shown(*answer, "status") == "failed";
  const int code =
      failed ? report_failure(context.err, {errc::internal, 0,
                                            "branch " + shown(*answer, "tag") + " failed: " + shown(*answer, "error")})
             : finish(context, answer, print_branch);
  return finish_trace(context, arguments, answer, samples, code);
}

}  // namespace coppice
