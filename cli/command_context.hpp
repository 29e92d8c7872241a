// Where a command of `coppice` talks to and prints to, and how it prints: as text, or as JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "client/client.hpp"
#include "options/exit_codes.hpp"

namespace coppice {

struct command_context {
  api_client client;
  bool json = false;      // print JSON, failures too
  bool progress = false;  // show progress on `err`: it is a terminal
  std::ostream& out;
  std::ostream& err;
};

// Tells a failure on `err`: "coppice: SENTENCE", or {"error": {"code", "message", "exit_code"}} in a line of its own.
// Returns `code`.
int report_failure(std::ostream& err, bool as_json, const error& failure, int code);
// The same by the context's choice; the code is that of the failure's kind.
int report_failure(const command_context& context, const error& failure);

// For what takes as long as it takes, e.g. as it writes a whole image: the daemon, which has a deadline for each step,
// is the one that ends it.
api_client patient(const command_context& context);

std::string snapshot_path(const std::string& tag);
std::string sandbox_path(const std::string& id);

// A field as a person should read it; "-" if it is absent or null.
std::string shown(const nlohmann::json& object, const char* name);
std::string shown_bytes(const nlohmann::json& object, const char* name);
// 0 if it is absent or no whole number.
std::uint64_t number(const nlohmann::json& object, const char* name);

void print_json(std::ostream& out, const nlohmann::json& value);
// One field a line, objects within indented.
void print_fields(std::ostream& out, const nlohmann::json& object, const std::string& indent = "");
// A field of each object of a list, a line each.
void print_column(std::ostream& out, const nlohmann::json& list, const char* field);

// Prints what the server answered, by `print` where no JSON is wanted, or reports the failure. Returns the exit code.
template <class Print>
int finish(const command_context& context, const result<nlohmann::json>& answer, Print print) {
  if (!answer.ok()) return report_failure(context, answer.error());
  if (context.json) {
    print_json(context.out, *answer);
  } else {
    print(context.out, *answer);
  }
  return exit_ok;
}

// Removes what is at `path_of(name)` for each name, also after one that failed. The exit code of the first failure.
int remove_each(const command_context& context, const std::vector<std::string>& names,
                const std::function<std::string(const std::string&)>& path_of);

}  // namespace coppice
