#include "bench/process_usage.hpp"

#include <unistd.h>

#include <sstream>
#include <string>

#include "base/file.hpp"
#include "base/units.hpp"

namespace coppice::bench {

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
  const std::string path = "/proc/" + std::to_string(pid) + "/status";
  const auto text = read_text_file(path);
  if (!text) return text.error();
  const std::size_t at = text->find("RssAnon:");
  std::uint64_t kibibytes = 0;
  if (at == std::string::npos || !(std::istringstream(text->substr(at + 8)) >> kibibytes))
    return error{errc::corrupt, 0, path + " tells no RssAnon"};
  return kibibytes * kib;
}

}  // namespace coppice::bench
