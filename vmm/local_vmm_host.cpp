#include "vmm/local_vmm_host.hpp"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <mutex>
#include <optional>

#include "base/log.hpp"
#include "vmm/capability_probe.hpp"
#include "vmm/event_loop.hpp"
#include "vmm/http_api_channel.hpp"
#include "vmm/process.hpp"
#include "vmm/uffd_receiver.hpp"
#include "vmm/unix_socket.hpp"

namespace coppice {
namespace {

// The two threads that all VMMs of a host share. `spawner` only starts processes: it stands still during each exec,
// which must not delay the answers that `io` waits for; and it must live as long as any child (PR_SET_PDEATHSIG).
struct host_threads {
  std::shared_ptr<event_loop> io;
  std::shared_ptr<event_loop> spawner;
};

class local_vmm final : public running_vmm {
 public:
  local_vmm(host_threads threads, child_process child, const start_vmm_request& request, std::unique_ptr<jail> inside)
      : threads_(std::move(threads)),
        group_(request.memory_group),
        jail_(std::move(inside)),
        pid_(child.pid()),
        child_(std::move(child)) {
    api_.emplace(threads_.io, request.api_socket);
  }

  ~local_vmm() override {
    api_.reset();  // first, so that its calls hear `cancelled`, not of the death below
    threads_.io->run_sync([this] {
      if (watched_) threads_.io->unwatch(child_->pidfd());
    });
    const std::lock_guard lock(mutex_);
    child_.reset();  // kills and reaps it, if it still runs
  }

  result<void> watch_exit(vmm_host::exit_callback on_exit) {
    result<void> outcome;
    threads_.io->run_sync([&] {
      outcome = threads_.io->watch(child_->pidfd(), EPOLLIN,
                                   [this, on_exit = std::move(on_exit)](std::uint32_t) { reap(on_exit); });
      watched_ = outcome.ok();
    });
    return outcome;
  }

  pid_t pid() const noexcept override { return pid_; }
  api_channel& api() noexcept override { return *api_; }

  void kill() noexcept override {
    const std::lock_guard lock(mutex_);
    if (child_) child_->kill();
  }

  result<write_grant> let_write(const std::filesystem::path& file) override {
    return jail_ ? jail_->let_write(file) : running_vmm::let_write(file);
  }
  result<void> lock_sockets() override { return jail_ ? jail_->lock_sockets() : running_vmm::lock_sockets(); }

 private:
  // On the loop's thread, once: the pidfd became readable.
  void reap(const vmm_host::exit_callback& on_exit) {
    threads_.io->unwatch(child_->pidfd());
    watched_ = false;
    exit_status status;
    {
      const std::lock_guard lock(mutex_);
      if (auto ended = child_->wait(std::chrono::milliseconds(0)); ended && *ended) {
        status = **ended;
      } else {  // somebody else reaped it (SIGCHLD ignored, or a wait for any child)
        spdlog::error("process {} ended, but how it ended is lost", pid_);
        status.code = -1;
      }
      child_.reset();
    }
    status.over_memory_limit = group_ && group_->has_killed();
    on_exit(status);  // may destroy this
  }

  host_threads threads_;
  const std::shared_ptr<const memory_cgroup> group_;  // outlives the child
  const std::unique_ptr<jail> jail_;                  // the same; null: none
  const pid_t pid_;
  std::mutex mutex_;  // guards child_ against kill()
  std::optional<child_process> child_;
  bool watched_ = false;                 // loop's thread
  std::optional<http_api_channel> api_;  // always there, until the destructor
};

// Firecracker accepts letters, digits and '-' only, up to 64 (src/utils/validators.rs).
std::string to_sandbox_id(std::string id) {
  std::replace_if(
      id.begin(), id.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '-'; }, '-');
  return id.empty() ? "vm" : id.substr(0, 64);
}

// A jailed VMM, whose the folder is, may connect only to what is its own. Best effort: without, it says that it can't.
void give_to_owner_of_folder(const std::filesystem::path& socket) {
  struct stat folder {};
  if (::stat(socket.parent_path().c_str(), &folder) == 0) {
    [[maybe_unused]] const auto given = ::lchown(socket.c_str(), folder.st_uid, folder.st_gid);
  }
}

class local_vmm_host final : public vmm_host {
 public:
  local_vmm_host(vmm_host_options options, host_threads threads)
      : options_(std::move(options)), threads_(std::move(threads)), receiver_(threads_.io) {}

  const vmm_capabilities& capabilities() const noexcept override { return capabilities_; }
  void set_capabilities(vmm_capabilities found) { capabilities_ = std::move(found); }

  result<std::unique_ptr<running_vmm>> start(const start_vmm_request& request, exit_callback on_exit) override {
    COPPICE_TRY(check_socket_path(request.api_socket));
    ::unlink(request.api_socket.c_str());  // Firecracker refuses to start where a file is
    const auto id = to_sandbox_id(request.id);
    process_spec spec{options_.binary, options_.extra_args, request.log_file};
    spec.network_namespace = request.network_namespace;
    spec.stdin_fd = request.memory_fd;
    if (request.memory_group) spec.cgroup_procs = request.memory_group->procs_fd();
    spec.arguments.insert(spec.arguments.end(), {"--api-sock", request.api_socket.string()});
    const auto& filter = options_.live_seccomp_filter;
    if (request.live && filter.empty()) spec.arguments.emplace_back("--no-seccomp");
    if (request.live && !filter.empty())
      spec.arguments.insert(spec.arguments.end(), {"--seccomp-filter", filter.string()});
    std::unique_ptr<jail> inside;
    if (options_.jails) {
      auto jailed = request;
      if (request.live && !filter.empty()) jailed.readable.push_back(filter);
      auto made = options_.jails->make(id, jailed);
      if (!made) return std::move(made).error();
      inside = *std::move(made);
      spec = inside->inside(std::move(spec));
    } else {
      spec.arguments.insert(spec.arguments.end(), {"--id", id});
    }

    std::optional<result<child_process>> child;
    threads_.spawner->run_sync([&] { child.emplace(spawn_process(spec)); });
    if (!*child) return std::move(*child).error();
    auto vmm = std::make_unique<local_vmm>(threads_, std::move(**child), request, std::move(inside));
    COPPICE_TRY(vmm->watch_exit(std::move(on_exit)));
    return std::unique_ptr<running_vmm>(std::move(vmm));
  }

  void receive_uffd(const std::filesystem::path& socket, std::chrono::milliseconds deadline,
                    uffd_callback done) override {
    receiver_.receive(socket, deadline, std::move(done));
    if (options_.jails) give_to_owner_of_folder(socket);
  }

 private:
  const vmm_host_options options_;
  const host_threads threads_;
  vmm_capabilities capabilities_;
  uffd_receiver receiver_;
};

result<void> check_binary(const std::filesystem::path& binary) {
  const auto hint = ": name a Firecracker or coppice-vmm with --vmm";
  std::error_code failure;
  if (!std::filesystem::exists(binary, failure))
    return error{errc::not_found, ENOENT, "VMM binary '" + binary.string() + "'" + hint};
  if (!std::filesystem::is_regular_file(binary, failure))
    return error{errc::invalid_argument, 0, "VMM binary '" + binary.string() + "' is not a file" + hint};
  if (::access(binary.c_str(), X_OK) != 0)
    return error{errc::invalid_argument, errno, "VMM binary '" + binary.string() + "' can't be executed" + hint};
  return {};
}

// A folder of its own, removed with all in it.
class probe_dir {
 public:
  static result<std::unique_ptr<probe_dir>> create(const std::filesystem::path& parent) {
    auto pattern = (parent / "probe-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
      return error{errc::io, errno, "create a folder in the runtime directory " + parent.string()};
    return std::unique_ptr<probe_dir>(new probe_dir(pattern));
  }
  ~probe_dir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  probe_dir(const probe_dir&) = delete;
  probe_dir& operator=(const probe_dir&) = delete;

  const std::filesystem::path path;

 private:
  explicit probe_dir(std::filesystem::path made) : path(std::move(made)) {}
};

}  // namespace

result<std::unique_ptr<vmm_host>> create_vmm_host(const vmm_host_options& options) {
  COPPICE_TRY(check_binary(options.binary));
  auto io = options.loop ? options.loop : event_loop::create();
  if (!io) return std::move(io).error();
  auto spawner = event_loop::create();
  if (!spawner) return std::move(spawner).error();
  auto host = std::make_unique<local_vmm_host>(options, host_threads{std::move(*io), std::move(*spawner)});
  auto dir = probe_dir::create(options.runtime_dir);
  if (!dir) return std::move(dir).error();
  auto found = probe_capabilities(*host, (*dir)->path);
  if (!found) {
    auto failure = std::move(found).error();
    failure.context = "probe of " + options.binary.string() + " (--vmm): " + failure.context;
    return failure;
  }
  host->set_capabilities(std::move(*found));
  return std::unique_ptr<vmm_host>(std::move(host));
}

}  // namespace coppice
