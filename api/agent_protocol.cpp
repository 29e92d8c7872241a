#include "api/agent_protocol.hpp"

#include "api/body_reader.hpp"
#include "api/json.hpp"

namespace coppice {
namespace {

using nlohmann::json;

constexpr std::uint64_t most_exec_seconds = 24 * 3600;
constexpr std::uint64_t usual_seconds = 30;
constexpr int most_nesting = 64;
constexpr std::chrono::seconds grace{5};  // for the agent to answer, beside its work

error not_understood(std::string_view why) {
  return {errc::unavailable, 0, "the agent in the guest gave no answer that can be understood: " + std::string(why)};
}

std::string text_or_empty(const json& value, const char* name) {
  const auto found = value.find(name);
  return found != value.end() && found->is_string() ? found->get<std::string>() : "";
}

json text_or_null(const json& value, const char* name) {
  const auto found = value.find(name);
  return found != value.end() && found->is_string() ? *found : json(nullptr);
}

std::int64_t exit_code(const json& value, std::int64_t otherwise) {
  const auto found = value.find("exit_code");
  return found != value.end() && found->is_number_integer() ? found->get<std::int64_t>() : otherwise;
}

}  // namespace

result<agent_request> parse_exec(std::string_view body) {
  body_reader reader(body, {"args", "timeout_secs"});
  const auto args = reader.texts("args");
  if (!args) reader.fail("field \"args\" is missing");
  const auto seconds = reader.number("timeout_secs", 1, most_exec_seconds).value_or(usual_seconds);
  if (reader.failure()) return *reader.failure();
  // The agent ends the command at its timeout, and is given some more time to say so.
  return agent_request{dump({{"action", "exec"}, {"args", *args}, {"timeout", seconds}}),
                       std::chrono::seconds(seconds) + grace, args->front()};
}

result<agent_request> parse_eval(std::string_view body) {
  body_reader reader(body, {"code"});
  const auto code = reader.required_text("code");
  if (reader.failure()) return *reader.failure();
  return agent_request{dump({{"action", "eval"}, {"code", code}}), std::chrono::seconds(usual_seconds) + grace};
}

agent_request ping_request() {
  return {dump({{"action", "ping"}}), grace};
}

result<json> parse_agent_answer(std::string_view text) {
  bool is_deep = false;  // a guest may mean harm, and writing such an answer takes stack for each level
  const auto look = [&](int depth, json::parse_event_t, json&) {
    is_deep = is_deep || depth > most_nesting;
    return !is_deep;
  };
  auto answer = json::parse(text, look, false);
  if (is_deep) return not_understood("it is nested too deep");
  if (answer.is_discarded()) return not_understood(text.empty() ? "it closed the connection" : "no JSON");
  if (!answer.is_object()) return not_understood("no JSON object");
  return answer;
}

json exec_answer(const json& agent) {
  if (agent.contains("error") && !agent.contains("stdout")) {
    const std::string why = text_or_empty(agent, "error");
    return {{"stdout", ""}, {"stderr", why}, {"exit_code", exit_code(agent, 1)}, {"error", why}};
  }
  return {{"stdout", text_or_empty(agent, "stdout")},
          {"stderr", text_or_empty(agent, "stderr")},
          {"exit_code", exit_code(agent, -1)}};
}

json eval_answer(const json& agent) {
  const char* const field = agent.contains("result_json") ? "result_json" : "result";  // of agents that run JavaScript
  return {{"result", text_or_null(agent, field)},
          {"error", text_or_null(agent, "error")},
          {"exit_code", exit_code(agent, agent.contains("error") ? 1 : 0)}};
}

}  // namespace coppice
