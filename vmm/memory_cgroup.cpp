#include "vmm/memory_cgroup.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <string_view>
#include <thread>

#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view group_prefix = "vm-";
constexpr auto removal_patience = std::chrono::milliseconds(1000);
constexpr auto removal_pause = std::chrono::milliseconds(10);

// A control file takes one write(2).
result<void> write_control(const fs::path& file, std::string_view value) {
  const unique_fd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), value.data(), value.size()) < 0)
    return error{errc::io, errno, "write '" + std::string(value) + "' to " + file.string()};
  return {};
}

bool has_word(const std::string& text, const std::string& wanted) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == wanted) return true;
  }
  return false;
}

// The kernel allows either processes or controllers for children.
result<void> move_out_of(const fs::path& folder) {
  const auto inside = read_text_file(folder / "cgroup.procs");
  if (!inside) return inside.error();
  const auto self = std::to_string(::getpid());
  if (!has_word(*inside, self)) return {};
  const auto leaf = folder / "daemon";
  if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return errno_error("create " + leaf.string());
  return write_control(leaf / "cgroup.procs", self);
}

// A process that has ended may count as inside for a moment more, even when it was reaped: EBUSY.
void remove_group(const fs::path& group) {
  for (auto left = removal_patience / removal_pause; ::rmdir(group.c_str()) != 0; --left) {
    if (errno != EBUSY || left == 0) return spdlog::warn("{}", errno_error("remove " + group.string()).message());
    std::this_thread::sleep_for(removal_pause);
  }
}

void remove_left_over_groups(const fs::path& folder) {
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure)) {
    if (entry.path().filename().string().starts_with(group_prefix)) remove_group(entry.path());
  }
}

}  // namespace

memory_cgroup::~memory_cgroup() {
  remove_group(folder_);
}

bool memory_cgroup::has_killed() const {
  const auto events = read_text_file(folder_ / "memory.events");
  if (!events) return false;
  // "oom_kill" alone counts kills for want of memory anywhere above, too; "oom" is about this group's limit.
  std::istringstream words(*events);
  std::string name;
  bool limit_reached = false;
  bool killed = false;
  for (std::uint64_t count = 0; words >> name >> count;) {
    limit_reached = limit_reached || (name == "oom" && count > 0);
    killed = killed || (name == "oom_kill" && count > 0);
  }
  return limit_reached && killed;
}

result<void> memory_cgroups::check(const fs::path& folder) {
  struct statfs system {};
  if (::statfs(folder.c_str(), &system) != 0 || system.f_type != CGROUP2_SUPER_MAGIC)
    return error{errc::invalid_argument, 0,
                 folder.string() + " is no folder of a cgroup v2 hierarchy: name one with --cgroup, or leave it out"};
  const auto controllers = read_text_file(folder / "cgroup.controllers");
  if (!controllers) return controllers.error();
  if (has_word(*controllers, "memory")) return {};
  return error{errc::unsupported, 0,
               folder.string() +
                   " has no memory controller: hand it down from above (systemd: Delegate=memory; by hand: write "
                   "+memory to cgroup.subtree_control of each parent)"};
}

result<std::shared_ptr<const memory_cgroups>> memory_cgroups::open(fs::path folder) {
  COPPICE_TRY(check(folder));
  COPPICE_TRY(move_out_of(folder));
  COPPICE_TRY(write_control(folder / "cgroup.subtree_control", "+memory"));
  remove_left_over_groups(folder);
  return std::shared_ptr<const memory_cgroups>(new memory_cgroups(std::move(folder)));
}

result<std::shared_ptr<const memory_cgroup>> memory_cgroups::create(const std::string& name,
                                                                    std::uint64_t limit_bytes) const {
  const auto group = folder_ / (std::string(group_prefix) + name);
  if (::mkdir(group.c_str(), 0755) != 0) return errno_error("create " + group.string());
  auto made = std::make_shared<const memory_cgroup>(
      group, unique_fd(::open((group / "cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC)));
  if (made->procs_fd() < 0) return errno_error("open cgroup.procs of " + group.string());
  COPPICE_TRY(write_control(group / "memory.max", std::to_string(limit_bytes)));
  COPPICE_TRY(write_control(group / "memory.oom.group", "1"));
  // Not there on a kernel without swap accounting.
  if (const auto no_swap = write_control(group / "memory.swap.max", "0");
      !no_swap && no_swap.error().sys_errno != ENOENT)
    return no_swap.error();
  return std::shared_ptr<const memory_cgroup>(std::move(made));
}

}  // namespace coppice
