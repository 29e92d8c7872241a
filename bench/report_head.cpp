#include "bench/report_head.hpp"

#include "base/units.hpp"
#include "bench/report.hpp"
#include "options/table.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;

// `before`, the value, `after`; empty if there is no such value.
std::string text_of(const json& object, const char* name, const std::string& before = "",
                    const std::string& after = "") {
  const auto found = object.is_object() ? object.find(name) : object.end();
  if (found == object.end() || found->is_null()) return "";
  if (found->is_number_float()) return before + short_number(found->get<double>()) + after;
  return before + (found->is_string() ? found->get<std::string>() : found->dump()) + after;
}

std::string memory_of(const json& environment) {
  const auto bytes = environment.value("ram_bytes", json());
  return bytes.is_number() ? ", " + short_number(bytes.get<double>() / static_cast<double>(gib)) + " GiB" : "";
}

std::string settings_line(const json& settings) {
  std::string line;
  if (!settings.is_object()) return line;
  for (const auto& [name, value] : settings.items()) {
    if (value.is_string() && value.get<std::string>().empty()) continue;
    line += (line.empty() ? "--" : " --") + name + " " + text_of(settings, name.c_str());
  }
  return line;
}

}  // namespace

void print_head(std::ostream& out, const json& environment, const json& settings) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const char* name, std::string text) {
    if (!text.empty()) rows.push_back({name, std::move(text)});
  };
  if (environment.is_object()) {
    add("machine", text_of(environment, "cpu") + text_of(environment, "cores", ", ", " CPUs") + memory_of(environment) +
                       text_of(environment, "hypervisor", ", inside a VM: "));
    if (!environment.value("free_page_reporting_order", json()).is_null())
      add("memory", "free pages are reported to the host: a CPU may stand still while it takes them");
    add("CPU time", text_of(environment, "load_average", "load before ") +
                        text_of(environment, "cpu_busy_percent", "; during the run busy ", " %") +
                        text_of(environment, "cpu_steal_percent", ", stolen by the host ", " %"));
    add("kernel", text_of(environment, "kernel") + text_of(environment, "kvm_by", "; KVM: "));
    const json vmm = environment.value("vmm", json());
    add("VMM", vmm.is_null() ? "none is run" : text_of(vmm, "name") + text_of(vmm, "version", " "));
    add("file system", text_of(environment, "root_file_system") + text_of(environment, "root_device", " on ") +
                           text_of(environment, "root", " (", ")"));
    add("code", text_of(environment, "commit", "commit ") + text_of(environment, "build", ", ") +
                    text_of(environment, "time", ", begun ") + text_of(environment, "seconds", ", took ", " s"));
  }
  add("settings", settings_line(settings));
  print_table(out, rows);
}

}  // namespace coppice::bench
