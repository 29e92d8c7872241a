#include "cli/guest_commands.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <string_view>

namespace coppice {

using nlohmann::json;

namespace {

constexpr std::chrono::seconds exec_grace{30};  // for the daemon to say that the guest's agent gave no answer

template <std::size_t n>
bool names_one_of(std::string_view text, const std::array<std::string_view, n>& words) {
  return std::ranges::any_of(words, [&](auto word) { return text.find(word) != std::string_view::npos; });
}

// For why the agent did not run a program, as docker has it; the agent passes on what its language calls the error.
exit_code code_of_no_program(std::string_view why) {
  static constexpr std::array<std::string_view, 3> missing = {"FileNotFoundError", "No such file", "ENOENT"};
  static constexpr std::array<std::string_view, 5> not_executable = {"PermissionError", "Permission denied", "EACCES",
                                                                     "Exec format error", "ENOEXEC"};
  if (names_one_of(why, missing)) return exit_no_program;
  return names_one_of(why, not_executable) ? exit_not_executable : exit_not_run;
}

std::optional<std::string> text_in(const json& answer, const char* name) {
  const auto found = answer.find(name);
  return found != answer.end() && found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
}

int exit_code_in(const json& answer) {
  const auto found = answer.find("exit_code");
  return found != answer.end() && found->is_number_integer() ? exit_code_passed_on(found->get<std::int64_t>())
                                                             : exit_failed;
}

}  // namespace

int exec_in_sandbox(const command_context& context, const exec_arguments& arguments) {
  api_client client = context.client;
  client.set_timeout(std::chrono::seconds(arguments.timeout_seconds) + exec_grace);
  const auto answer = client.post(sandbox_path(arguments.id) + "/exec",
                                  {{"args", arguments.program}, {"timeout_secs", arguments.timeout_seconds}});
  if (!answer.ok()) return report_failure(context.err, context.json, answer.error(), exit_not_run);
  if (const auto why = text_in(*answer, "error")) {
    const error failure{errc::io, 0, "the agent in sandbox '" + arguments.id + "' failed: " + *why};
    return report_failure(context.err, context.json, failure, code_of_no_program(*why));
  }
  finish(context, answer, [&](std::ostream& out, const json& said) {
    out << said.value("stdout", "") << std::flush;
    context.err << said.value("stderr", "") << std::flush;
  });
  return exit_code_in(*answer);
}

int eval_in_sandbox(const command_context& context, const std::string& id, const std::string& code) {
  const auto answer = patient(context).post(sandbox_path(id) + "/eval", {{"code", code}});
  if (!answer.ok()) return report_failure(context, answer.error());
  if (const auto why = text_in(*answer, "error")) {
    return report_failure(context, {errc::io, 0, "the code failed: " + *why});
  }
  finish(context, answer, [](std::ostream& out, const json& said) {
    if (const auto value = text_in(said, "result")) out << *value << '\n';
  });
  return exit_code_in(*answer);
}

int ping_sandbox(const command_context& context, const std::string& id) {
  return finish(context, context.client.post(sandbox_path(id) + "/ping", json::object()),
                [](std::ostream& out, const json& said) { print_fields(out, said); });
}

int show_journal(const command_context& context, const std::string& id, bool reset) {
  return finish(context, context.client.get(sandbox_path(id) + "/journal" + (reset ? "?reset=true" : "")),
                [](std::ostream& out, const json& status) { print_fields(out, status); });
}

}  // namespace coppice
