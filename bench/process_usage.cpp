#include "bench/process_usage.hpp"

#include <unistd.h>

#include <filesystem>
#include <sstream>
#include <string>

#include "base/file.hpp"
#include "base/units.hpp"

namespace coppice::bench {
namespace {

// A number in /proc/PID/status. `name` ends with its colon.
result<std::uint64_t> status_field(pid_t pid, std::string_view name) {
  const std::string path = "/proc/" + std::to_string(pid) + "/status";
  const auto text = read_text_file(path);
  if (!text) return text.error();
  const std::size_t at = text->find(name);
  std::uint64_t value = 0;
  if (at == std::string::npos || !(std::istringstream(text->substr(at + name.size())) >> value))
    return error{errc::corrupt, 0, path + " tells no " + std::string(name)};
  return value;
}

template <class Condition>
result<std::uint64_t> count_entries(const std::filesystem::path& folder, Condition counts) {
  std::error_code failure;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator each(folder, failure), end; !failure && each != end;
       each.increment(failure)) {
    if (counts(each->path())) ++count;
  }
  if (failure) return error{errc::not_found, failure.value(), "list " + folder.string()};
  return count;
}

}  // namespace

result<std::chrono::duration<double>> cpu_time_of(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const auto text = read_text_file(path);
  if (!text) return text.error();
  const std::size_t name_end = text->rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return error{errc::corrupt, 0, path};
  std::istringstream fields(text->substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;  // up to utime, proc_pid_stat(5)
  double user = 0, kernel = 0;
  if (!(fields >> user >> kernel)) return error{errc::corrupt, 0, path};
  return std::chrono::duration<double>((user + kernel) / static_cast<double>(::sysconf(_SC_CLK_TCK)));
}

result<std::uint64_t> own_memory_of(pid_t pid) {
  const auto kibibytes = status_field(pid, "RssAnon:");
  if (!kibibytes) return kibibytes.error();
  return *kibibytes * kib;
}

result<std::uint64_t> threads_of(pid_t pid) {
  return count_entries("/proc/" + std::to_string(pid) + "/task", [](const std::filesystem::path& thread) {
    const auto name = read_text_file(thread / "comm");
    return name && !name->starts_with("iou-wrk-");  // one that has ended meanwhile has no name
  });
}

result<std::uint64_t> open_files_of(pid_t pid) {
  return count_entries("/proc/" + std::to_string(pid) + "/fd", [](const auto&) { return true; });
}

}  // namespace coppice::bench
