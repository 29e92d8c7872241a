#include "cli/command_context.hpp"

#include <chrono>

#include "base/units.hpp"
#include "options/table.hpp"

namespace coppice {

using nlohmann::json;

namespace {

// Longer than any deadline of the daemon's: writing 1 TiB, twice, at the 32 MiB/s below which it gives up.
constexpr std::chrono::hours longest_wait{24};

}  // namespace

int report_failure(std::ostream& err, bool as_json, const error& failure, int code) {
  if (as_json) {
    const json told = {
        {"error", {{"code", to_string(failure.code)}, {"message", failure.message()}, {"exit_code", code}}}};
    err << told.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  } else {
    err << "coppice: " << failure.message() << '\n';
  }
  return code;
}

int report_failure(const command_context& context, const error& failure) {
  return report_failure(context.err, context.json, failure, exit_code_of(failure.code));
}

api_client patient(const command_context& context) {
  api_client client = context.client;
  client.set_timeout(longest_wait);
  return client;
}

std::string snapshot_path(const std::string& tag) {
  return "/v1/snapshots/" + path_segment(tag);
}
std::string sandbox_path(const std::string& id) {
  return "/v1/sandboxes/" + path_segment(id);
}

std::string shown(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "-";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_boolean()) return found->get<bool>() ? "yes" : "no";
  return found->dump();
}

std::string shown_bytes(const json& object, const char* name) {
  return object.contains(name) ? format_bytes(number(object, name)) : "-";
}

std::uint64_t number(const json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<std::uint64_t>() : 0;
}

void print_json(std::ostream& out, const json& value) {
  out << value.dump(2, ' ', false, json::error_handler_t::replace) << '\n';
}

void print_fields(std::ostream& out, const json& object, const std::string& indent) {
  std::vector<std::vector<std::string>> rows;
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

void print_column(std::ostream& out, const json& list, const char* field) {
  for (const json& item : list) out << shown(item, field) << '\n';
}

int remove_each(const command_context& context, const std::vector<std::string>& names,
                const std::function<std::string(const std::string&)>& path_of) {
  int code = exit_ok;
  json removed = json::array();
  for (const auto& name : names) {
    const auto answer = context.client.remove(path_of(name));
    if (!answer.ok()) {
      const int failed = report_failure(context, answer.error());
      if (code == exit_ok) code = failed;
      continue;
    }
    removed.push_back(name);
    if (!context.json) context.out << "removed " << name << std::endl;
  }
  if (context.json) print_json(context.out, {{"removed", removed}});
  return code;
}

}  // namespace coppice
