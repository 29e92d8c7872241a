#include "doctor/doctor.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "doctor/doctor_checks.hpp"
#include "options/exit_codes.hpp"
#include "options/table.hpp"

namespace coppice {
namespace {

constexpr std::array checks = {
    named_check{"configuration", doctor::check_configuration},
    named_check{"kernel", doctor::check_kernel},
    named_check{"kvm", doctor::check_kvm},
    named_check{"userfaultfd", doctor::check_userfaultfd},
    named_check{"uffd features", doctor::check_userfaultfd_features},
    named_check{"copy engine", doctor::check_copy_engine},
    named_check{"pidfd", doctor::check_pidfd},
    named_check{"open files", doctor::check_open_files},
    named_check{"threads", doctor::check_threads},
    named_check{"priority", doctor::check_priority},
    named_check{"memory", doctor::check_memory},
    named_check{"memory limits", doctor::check_memory_limits},
    named_check{"free pages", doctor::check_free_pages},
    named_check{"network", doctor::check_network},
    named_check{"tmpfs", doctor::check_tmpfs},
    named_check{"root", doctor::check_root},
    named_check{"vmm", doctor::check_vmm},
    named_check{"listen", doctor::check_listen},
};

// What the daemon's parts log while they are tried would stand between the lines.
class silent_log {
 public:
  silent_log() { spdlog::set_level(spdlog::level::off); }
  silent_log(const silent_log&) = delete;
  silent_log& operator=(const silent_log&) = delete;
  ~silent_log() { spdlog::set_level(before_); }

 private:
  const spdlog::level::level_enum before_ = spdlog::get_level();
};

}  // namespace

std::string_view to_string(verdict value) noexcept {
  switch (value) {
    case verdict::ok:
      return "ok";
    case verdict::warning:
      return "warning";
    case verdict::failed:
      return "failed";
  }
  return "failed";
}

std::span<const named_check> doctor_checks() {
  return checks;
}

int run_doctor(const doctor_options& given, bool json, std::ostream& out) {
  const doctor_options options = completed(given);
  const silent_log silence;
  bool good = true;
  std::vector<std::vector<std::string>> rows;
  auto list = nlohmann::ordered_json::array();
  for (const named_check& check : checks) {
    const finding result = check.run(options);
    const std::string status(to_string(result.status));
    good = good && result.status != verdict::failed;
    rows.push_back({status, check.name, result.found});
    if (!result.advice.empty()) rows.push_back({"", "", "-> " + result.advice});
    list.push_back({{"check", check.name}, {"status", status}, {"found", result.found}, {"advice", result.advice}});
  }
  if (json) {
    const nlohmann::ordered_json answer = {{"ok", good}, {"checks", std::move(list)}};
    out << answer.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  } else {
    print_table(out, rows);
  }
  return good ? exit_ok : exit_failed;
}

}  // namespace coppice
