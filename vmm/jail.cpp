#include "vmm/jail.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <set>

#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {
namespace fs = std::filesystem;

constexpr mode_t traversable = 0755;

result<void> make_folder(const fs::path& path) {
  if (::mkdir(path.c_str(), traversable) != 0 && errno != EEXIST) return errno_error("create " + path.string());
  // Whatever the umask: the VMM's user is to get through.
  if (::chmod(path.c_str(), traversable) != 0) return errno_error("change the mode of " + path.string());
  return {};
}

// Below `root`, the place where `path` is to be mounted: a folder, or an empty file.
result<fs::path> make_place(const fs::path& root, const fs::path& path, bool folder) {
  fs::path place = root;
  const auto inside = path.relative_path();
  for (auto part = inside.begin(); part != inside.end(); ++part) {
    place /= *part;
    if (folder || std::next(part) != inside.end()) {
      COPPICE_TRY(make_folder(place));
    } else if (auto file = open_file(place, O_CREAT | O_WRONLY); !file) {
      return std::move(file).error();
    }
  }
  return place;
}

result<struct stat> stat_of(const fs::path& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return errno_error("look at " + path.string());
  return found;
}

result<void> check_readable(const fs::path& file) {
  const auto found = stat_of(file);
  if (!found) return found.error();
  if ((found->st_mode & S_IROTH) != 0) return {};
  return error{errc::invalid_argument, 0,
               file.string() + " can't be read by a jailed VMM, which runs as a user of its own: chmod o+r it"};
}

// The numbers that jails in use have.
class user_pool {
 public:
  explicit user_pool(uid_t first) : first_(first) {}
  uid_t take() {
    const std::lock_guard lock(mutex_);
    auto free = first_;
    for (const auto used : taken_) {
      if (used != free) break;
      ++free;
    }
    taken_.insert(free);
    return free;
  }
  void give_back(uid_t user) {
    const std::lock_guard lock(mutex_);
    taken_.erase(user);
  }

 private:
  const uid_t first_;
  std::mutex mutex_;
  std::set<uid_t> taken_;
};

// A name of a staged file in the VMM's folder: the VMM can write the file, and put nothing else in its place.
class file_grant {
 public:
  file_grant(unique_fd file, fs::path link) : file_(std::move(file)), link_(std::move(link)) {}
  ~file_grant() {
    ::unlink(link_.c_str());
    if (::fchown(file_.get(), ::geteuid(), ::getegid()) != 0)
      spdlog::warn("take back {}: errno {}", link_.string(), errno);
  }
  file_grant(const file_grant&) = delete;
  file_grant& operator=(const file_grant&) = delete;

 private:
  const unique_fd file_;
  const fs::path link_;
};

class chroot_jail final : public jail {
 public:
  chroot_jail(const jail_options& options, std::shared_ptr<user_pool> users, std::string id, fs::path base)
      : options_(options),
        users_(std::move(users)),
        user_(users_->take()),
        id_(std::move(id)),
        base_(std::move(base)) {}

  ~chroot_jail() override {
    std::error_code ignored;
    for (const auto& folder : outboxes_) fs::remove_all(folder, ignored);
    fs::remove_all(base_, ignored);
    users_->give_back(user_);
  }
  chroot_jail(const chroot_jail&) = delete;
  chroot_jail& operator=(const chroot_jail&) = delete;

  result<void> prepare(const start_vmm_request& request) {
    const auto root = base_ / "root";
    std::error_code failure;
    fs::remove_all(base_, failure);
    if (!fs::create_directories(root, failure)) return errno_error("create " + root.string(), failure.value());
    sockets_ = request.api_socket.parent_path();
    if (::chown(sockets_.c_str(), user_, user_) != 0) return errno_error("give away " + sockets_.string());
    COPPICE_TRY(show(root, sockets_, true));
    for (const auto& folder : options_.write_folders) {
      outboxes_.push_back(folder / ("jail-" + id_));
      COPPICE_TRY(make_folder(outboxes_.back()));
      COPPICE_TRY(show(root, outboxes_.back(), true));  // where it may open what is linked there, and make nothing
    }
    for (const auto& file : request.readable) {
      COPPICE_TRY(check_readable(file));
      COPPICE_TRY(show(root, file, false));
    }
    if (request.memory_fd >= 0) {  // whose path is /proc/self/fd/0
      auto place = make_place(root, "/proc", true);
      if (!place) return std::move(place).error();
      mounts_.push_back({{}, *place});
    }
    return {};
  }

  process_spec inside(process_spec plain) const override {
    const auto user = std::to_string(user_);
    std::vector<std::string> arguments{"--id",  id_,  "--exec-file",       options_.vmm.string(),    "--uid", user,
                                       "--gid", user, "--chroot-base-dir", options_.folder.string(), "--"};
    arguments.insert(arguments.end(), plain.arguments.begin(), plain.arguments.end());
    plain.binary = options_.jailer;
    plain.arguments = std::move(arguments);
    plain.mounts = mounts_;
    plain.keep_privileges = true;  // the jailer needs them, and drops them
    return plain;
  }

  result<write_grant> let_write(const fs::path& file) override {
    const auto at = stat_of(file.parent_path());
    if (!at) return at.error();
    const auto outbox = std::find_if(outboxes_.begin(), outboxes_.end(), [&](const fs::path& folder) {
      const auto found = stat_of(folder);
      return found && found->st_dev == at->st_dev;
    });
    if (outbox == outboxes_.end())
      return error{errc::io, 0, "a jailed VMM can't write to the file system of " + file.string()};
    auto opened = open_file(file, O_CREAT | O_WRONLY | O_NOFOLLOW, 0600);
    if (!opened) return std::move(opened).error();
    if (::fchown(opened->get(), user_, user_) != 0) return errno_error("give away " + file.string());
    const auto link = *outbox / std::to_string(++grants_);
    auto hold = std::make_shared<file_grant>(*std::move(opened), link);
    if (::link(file.c_str(), link.c_str()) != 0) return errno_error("link " + file.string() + " as " + link.string());
    return write_grant{link, std::move(hold)};
  }

  result<void> lock_sockets() override {
    if (::chown(sockets_.c_str(), ::geteuid(), ::getegid()) != 0) return errno_error("take back " + sockets_.string());
    return {};
  }

 private:
  // Inside, at the same path: a folder to write in, or a file to read.
  result<void> show(const fs::path& root, const fs::path& path, bool folder) {
    auto place = make_place(root, path, folder);
    if (!place) return std::move(place).error();
    mounts_.push_back({path, *std::move(place), folder});
    return {};
  }

  const jail_options& options_;  // the jailer's, which outlives this
  const std::shared_ptr<user_pool> users_;
  const uid_t user_;
  const std::string id_;
  const fs::path base_;  // the chroot is base_ / "root" (Firecracker, src/jailer/src/env.rs)
  fs::path sockets_;
  std::vector<fs::path> outboxes_;
  std::vector<private_mount> mounts_;
  std::uint64_t grants_ = 0;
};

using inode = std::pair<dev_t, ino_t>;

// The roots of all chroots below `folder`: <name of the binary>/<id>/root.
std::set<inode> roots_below(const fs::path& folder) {
  std::set<inode> roots;
  std::error_code ignored;
  for (auto each = fs::recursive_directory_iterator(folder, ignored); each != fs::recursive_directory_iterator();
       each.increment(ignored)) {
    if (each.depth() < 2) continue;
    each.disable_recursion_pending();
    if (const auto found = stat_of(each->path()); found && each->path().filename() == "root")
      roots.emplace(found->st_dev, found->st_ino);
  }
  return roots;
}

// SIGKILL to all whose root is one of `roots`, and waits until they are gone. Errors: deadline_exceeded, io.
result<void> end_processes_in(const std::set<inode>& roots) {
  constexpr int patience_ms = 5000;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator("/proc", failure)) {
    const auto pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    // By system call: glibc 2.36 has the wrappers, its header not for C++.
    const unique_fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const auto root = stat_of(entry.path() / "root");
    if (!process || !root || roots.count({root->st_dev, root->st_ino}) == 0) continue;
    spdlog::warn("ending VMM {}, which a daemon before has left", pid);
    ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);  // fails only if it has ended
    pollfd ended{process.get(), POLLIN, 0};
    if (::poll(&ended, 1, patience_ms) != 1)
      return error{errc::deadline_exceeded, 0,
                   "VMM " + std::to_string(pid) + ", which a daemon before has left, does not end"};
  }
  if (failure) return errno_error("list /proc", failure.value());
  return {};
}

// The guard, and the end of its pipe that the kernel closes with us.
struct running_guard {
  unique_fd pipe;
  std::optional<child_process> process;
};

result<running_guard> start_guard(const jail_options& options) {
  if (options.guard.empty()) return running_guard{};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe");
  const unique_fd read_end(ends[0]);
  unique_fd write_end(ends[1]);
  process_spec spec{options.guard, {"--guard-jails", options.folder.string()}, "/dev/null"};
  spec.stdin_fd = read_end.get();
  spec.keep_privileges = true;  // to end processes of other users
  auto started = spawn_process(spec);
  if (!started) return std::move(started).error();
  return running_guard{std::move(write_end), *std::move(started)};
}

class process_jailer final : public jailer {
 public:
  process_jailer(jail_options options, running_guard guard)
      : options_(std::move(options)),
        users_(std::make_shared<user_pool>(options_.first_uid)),
        guard_(std::move(guard)) {}
  ~process_jailer() override {
    std::error_code ignored;
    fs::remove_all(options_.folder, ignored);
  }
  process_jailer(const process_jailer&) = delete;
  process_jailer& operator=(const process_jailer&) = delete;

  result<std::unique_ptr<jail>> make(const std::string& id, const start_vmm_request& request) override {
    auto made = std::make_unique<chroot_jail>(options_, users_, id, options_.folder / options_.vmm.filename() / id);
    COPPICE_TRY(made->prepare(request));
    return std::unique_ptr<jail>(std::move(made));
  }

 private:
  const jail_options options_;
  const std::shared_ptr<user_pool> users_;
  running_guard guard_;  // killed, not ended: no VMM is left when this goes
};

}  // namespace

result<void> guard_jails(const fs::path& folder) {
  // The parent's end is what it waits for. Should the parent have ended before this line, its VMMs wait for the next
  // one.
  if (::prctl(PR_SET_PDEATHSIG, 0) != 0) return errno_error("prctl");
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
  }
  return end_processes_in(roots_below(folder));
}

result<void> jailer::check(const fs::path& jailer) {
  const auto hint = ": name Firecracker's jailer with --jailer";
  std::error_code failure;
  if (!fs::is_regular_file(jailer, failure))
    return error{errc::not_found, ENOENT, "jailer '" + jailer.string() + "'" + hint};
  if (::access(jailer.c_str(), X_OK) != 0)
    return error{errc::invalid_argument, errno, "jailer '" + jailer.string() + "' can't be executed" + hint};
  if (::geteuid() != 0)
    return error{errc::unsupported, 0,
                 "--jailer needs a daemon that runs as root: it makes chroots, and changes users. Run coppiced as "
                 "root, or leave --jailer out"};
  return {};
}

result<std::unique_ptr<jailer>> jailer::create(jail_options options) {
  COPPICE_TRY(check(options.jailer));
  std::error_code failure;
  options.vmm = fs::canonical(options.vmm, failure);  // as the jailer does: it names the chroot by it
  if (failure) return errno_error("VMM binary " + options.vmm.string(), failure.value());
  COPPICE_TRY(end_processes_in(roots_below(options.folder)));
  fs::remove_all(options.folder, failure);
  fs::create_directories(options.folder, failure);
  if (failure) return errno_error("create " + options.folder.string(), failure.value());
  auto guard = start_guard(options);
  if (!guard) return std::move(guard).error();
  return std::unique_ptr<jailer>(std::make_unique<process_jailer>(std::move(options), *std::move(guard)));
}

}  // namespace coppice
