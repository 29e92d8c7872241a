#include "bench/environment.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "base/file.hpp"
#include "base/free_page_reporting.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// The first CPU's line of that name in /proc/cpuinfo; empty if there is none.
std::string cpuinfo(const char* name) {
  const auto text = read_text_file("/proc/cpuinfo");
  if (!text) return "";
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name) && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  }
  return "";
}

bool has_cpu_flag(const std::string& wanted) {
  return (" " + cpuinfo("flags") + " ").find(" " + wanted + " ") != std::string::npos;
}

json cpu_model() {
  const std::string model = cpuinfo("model name");
  return model.empty() ? json(nullptr) : json(model);
}

// Of the VM that this machine is. Null on bare metal, and where CPU flags do not tell (not x86).
json hypervisor() {
  if (!has_cpu_flag("hypervisor")) return nullptr;
  auto vendor = read_text_file("/sys/class/dmi/id/sys_vendor");
  if (!vendor || vendor->empty()) return "of an unknown maker";
  while (!vendor->empty() && vendor->back() == '\n') vendor->pop_back();
  return *vendor;
}

// By what KVM runs guests here: a nested or software KVM has other costs of a page fault and of an exit.
json kvm_by() {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) return "none";
  if (cpuinfo("flags").empty()) return nullptr;
  if (has_cpu_flag("vmx") || has_cpu_flag("svm"))
    return has_cpu_flag("hypervisor") ? "hardware virtualisation, nested" : "hardware virtualisation";
  std::error_code ignored;
  const bool pvm = fs::exists("/sys/module/kvm_pvm", ignored);
  return pvm ? "no hardware virtualisation (kvm_pvm)" : "no hardware virtualisation";
}

// Type and device of the mount that `folder` is on, by its device number (proc(5), mountinfo).
std::pair<json, json> file_system_of(const fs::path& folder) {
  struct stat info {};
  const auto text = read_text_file("/proc/self/mountinfo");
  if (!text || ::stat(folder.c_str(), &info) != 0) return {};
  const std::string wanted = std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string id, parent, device, word, type, source;
    words >> id >> parent >> device;
    if (device != wanted) continue;
    while (words >> word && word != "-") {
    }
    if (words >> type >> source) return {type, source};
  }
  return {};
}

json commit() {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      ::popen("git -C '" COPPICE_SOURCE_DIR "' describe --always --dirty --abbrev=12 2>/dev/null", "r"), ::pclose);
  char text[128] = {};
  if (!pipe || std::fgets(text, sizeof text, pipe.get()) == nullptr) return nullptr;
  std::string found = text;
  while (!found.empty() && found.back() == '\n') found.pop_back();
  return found.empty() ? json(nullptr) : json(found);
}

// Of the last minute: a machine that does other work measures that work too.
json load_average() {
  double one_minute = 0;
  return ::getloadavg(&one_minute, 1) == 1 ? json(one_minute) : json(nullptr);
}

std::string now() {
  char text[64];
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

json describe_environment(const fs::path& root) {
  utsname kernel{};
  const bool known = ::uname(&kernel) == 0;
  const auto [type, device] = file_system_of(root);
  const auto reporting = free_page_reporting_order();
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  return {{"cpu", cpu_model()},
          {"cores", std::thread::hardware_concurrency()},
          {"load_average", load_average()},
          {"ram_bytes", pages > 0 && page > 0 ? json(pages * page) : json(nullptr)},
          {"kernel", known ? json(std::string(kernel.sysname) + " " + kernel.release) : json(nullptr)},
          {"hypervisor", hypervisor()},
          {"free_page_reporting_order", reporting ? json(*reporting) : json(nullptr)},
          {"kvm", ::access("/dev/kvm", R_OK | W_OK) == 0},
          {"kvm_by", kvm_by()},
          {"root", root.string()},
          {"root_file_system", type},
          {"root_device", device},
          {"commit", commit()},
          {"version", COPPICE_VERSION},
          {"build", COPPICE_BUILD_TYPE},
          {"time", now()}};
}

cpu_watch::times cpu_watch::read() {
  const auto text = read_text_file("/proc/stat");
  if (!text) return {};
  std::istringstream fields(*text);
  std::string name;
  double user = 0, nice = 0, kernel = 0, idle = 0, waiting = 0, interrupts = 0, soft_interrupts = 0, steal = 0;
  // In the order of proc_stat(5); guest time is part of user time.
  fields >> name >> user >> nice >> kernel >> idle >> waiting >> interrupts >> soft_interrupts >> steal;
  if (!fields) return {};
  const double busy = user + nice + kernel + interrupts + soft_interrupts;
  return {busy, steal, busy + steal + idle + waiting};
}

json cpu_watch::since_then() const {
  const times now = read();
  const double all = now.all - begin_.all;
  if (begin_.all == 0 || all <= 0) return {{"cpu_busy_percent", nullptr}, {"cpu_steal_percent", nullptr}};
  return {{"cpu_busy_percent", (now.busy - begin_.busy) / all * 100},
          {"cpu_steal_percent", (now.steal - begin_.steal) / all * 100}};
}

}  // namespace coppice::bench
