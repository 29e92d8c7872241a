// The protocol of the agent inside a guest, as forkd's SDK 0.5.3 speaks it (forkd/sandbox.py): a connection a request;
// one line of JSON with an "action", the end of the stream; the answer is JSON up to the end of the stream.
// Pure functions, thread-safe.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

struct agent_request {
  std::string line;               // without the line's end
  std::chrono::seconds patience;  // how long the answer may take
  std::string program = {};       // of exec: the first of its arguments
};

// Of the bodies of POST .../exec and .../eval. Errors: invalid_argument, saying which field is wrong.
result<agent_request> parse_exec(std::string_view body);
result<agent_request> parse_eval(std::string_view body);
agent_request ping_request();

// An object. Errors: unavailable (the agent's answer can't be understood).
result<nlohmann::json> parse_agent_answer(std::string_view text);
nlohmann::json exec_answer(const nlohmann::json& agent);  // {"stdout", "stderr", "exit_code"}, and "error"
nlohmann::json eval_answer(const nlohmann::json& agent);  // {"result", "error", "exit_code"}

}  // namespace coppice
