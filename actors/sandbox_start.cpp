// The start of a sandbox, one function a stage.
#include <fcntl.h>

#include "actors/error_bridge.hpp"
#include "actors/sandbox_actor.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "vmm/api_requests.hpp"
#include "vmm/memory_image.hpp"

namespace coppice {
namespace {
constexpr auto api_poll = std::chrono::milliseconds(5);
constexpr auto api_patience = std::chrono::seconds(5);
constexpr auto call_deadline = std::chrono::seconds(5);
constexpr auto load_deadline = std::chrono::seconds(10);
constexpr std::size_t longest_refusal = 400;  // of a VMM

result<std::shared_ptr<guest_memory>> load_ram(const std::string& id, const snapshot_record& from,
                                               const memory_cgroup* group, const std::filesystem::path& log) {
  auto memory = guest_memory::create(id, from.memory_bytes);
  if (!memory) return std::move(memory).error();
  if (group != nullptr) {
    COPPICE_TRY(load_image_inside(*group, from.memory_path(), *memory, log));
  } else {
    auto image = open_file(from.memory_path(), O_RDONLY);
    if (!image) return std::move(image).error();
    COPPICE_TRY(load_image(image->get(), *memory));
  }
  return std::make_shared<guest_memory>(std::move(*memory));
}

std::vector<std::filesystem::path> files_to_read(const sandbox_spec& spec, bool live) {
  if (const auto* boot = std::get_if<boot_spec>(&spec.from)) {
    std::vector<std::filesystem::path> files{boot->request.kernel};
    if (boot->request.initrd) files.push_back(*boot->request.initrd);
    if (boot->request.rootfs) files.push_back(boot->request.rootfs->path);
    return files;
  }
  const auto& from = *std::get<restore_spec>(spec.from).snapshot;
  std::vector<std::filesystem::path> files(from.read_only_drives.begin(), from.read_only_drives.end());
  files.push_back(from.vmstate_path());
  if (!live) files.push_back(from.memory_path());
  return files;
}

std::string boot_args(const create_snapshot_request& ask) {
  if (!ask.network) return ask.boot_args;
  return ask.boot_args.empty() ? guest_ip_boot_arg : ask.boot_args + " " + guest_ip_boot_arg;
}
}  // namespace

caf::typed_response_promise<sandbox_started> sandbox_actor::start() {
  starting_ = make_response_promise<sandbox_started>();
  offload(
      *with_->image_pool,
      [with = with_, spec = spec_, live = live_, self = sandbox_handle(this), this] {
        return prepare(*with, spec, live, self, this);
      },
      [this](result<prepared> ready) { when_prepared(std::move(ready)); });
  return starting_;
}

// In the pool: folder, RAM, network and process.
result<sandbox_actor::prepared> sandbox_actor::prepare(const services& with, const sandbox_spec& spec, bool live,
                                                       sandbox_handle self, sandbox_actor* owner) {
  const run_folder folder{with.run_dir / spec.id};
  std::error_code failure;
  std::filesystem::create_directories(folder.sockets(), failure);
  if (failure) return error{errc::io, failure.value(), "create " + folder.sockets().string()};
  prepared ready;
  std::shared_ptr<const memory_cgroup> group;
  if (spec.memory_limit > 0) {
    auto made = with.cgroups->create(spec.id, spec.memory_limit);
    if (!made) return std::move(made).error();
    group = *std::move(made);
  }
  if (live) {
    auto memory = load_ram(spec.id, *std::get<restore_spec>(spec.from).snapshot, group.get(), folder.log_file());
    if (!memory) return std::move(memory).error();
    ready.memory = std::move(*memory);
  }
  if (spec.network) {
    auto network = network_namespace::create();
    if (!network) return std::move(network).error();
    ready.network = std::make_shared<const network_namespace>(*std::move(network));
  }
  const int inside = ready.network ? ready.network->fd() : -1;
  const int memory_fd = ready.memory ? ready.memory->fd() : -1;
  const start_vmm_request request{spec.id, folder.api_socket(),      folder.log_file(), live, inside, memory_fd,
                                  group,   files_to_read(spec, live)};
  auto vmm = with.vmm.start(request, [self, owner](exit_status status) {
    run_in(self, [owner, status] { owner->when_exited(status); });  // it runs in the owner, so the owner lives
  });
  if (!vmm) return std::move(vmm).error();
  ready.vmm = share_offloaded(with.disk_pool, std::move(*vmm));
  ready.group = std::move(group);
  return ready;
}

void sandbox_actor::when_prepared(result<prepared> ready) {
  if (!ready) return start_failed(std::move(ready).error());
  vmm_ = std::move(ready->vmm);
  memory_ = std::move(ready->memory);
  network_ = std::move(ready->network);
  group_ = ready->group;
  if (stopping_) return vmm_->kill();
  api_deadline_ = clock().now() + api_patience;
  wait_for_api();
}

void sandbox_actor::wait_for_api() {
  call(api_requests::describe(), call_deadline, [this](result<api_reply> answer) {
    if (state_ == run_state::gone || stopping_) return;
    if (answer) return std::holds_alternative<restore_spec>(spec_.from) ? load_snapshot() : boot();
    if (answer.error().code != errc::unavailable) return start_failed(answer.error());
    if (clock().now() >= api_deadline_)
      return start_failed({errc::deadline_exceeded, 0, "the VMM's API never answered"});
    after(api_poll, [this] {
      if (state_ == run_state::starting && !stopping_) wait_for_api();
    });
  });
}

void sandbox_actor::load_snapshot() {
  const auto& from = *std::get<restore_spec>(spec_.from).snapshot;
  // The memfd is the VMM's stdin. By the daemon's /proc/PID/fd it could not open it where the daemon has a capability
  // that it lacks (ptrace(2), access mode checking).
  const auto memory = live_ ? std::filesystem::path(vmm_memory_path) : from.memory_path();
  call(api_requests::load_snapshot(from.vmstate_path(), memory, live_, true, false), load_deadline,
       [this](result<api_reply> answer) {
         if (state_ == run_state::gone || stopping_) return;
         if (!answer) return start_failed(answer.error());
         diff_base_ = std::make_shared<const snapshot_record>(*std::get<restore_spec>(spec_.from).snapshot);
         if (live_)
           listen_for_uffd();
         else
           resume_first();
       });
}

void sandbox_actor::boot() {
  const auto& ask = std::get<boot_spec>(spec_.from).request;
  boot_requests_.push_back(api_requests::machine_config(ask.vcpus, ask.memory_bytes / mib, false));
  boot_requests_.push_back(api_requests::boot_source(ask.kernel, boot_args(ask), ask.initrd.value_or("")));
  if (ask.rootfs)
    boot_requests_.push_back(api_requests::drive("rootfs", ask.rootfs->path, ask.rootfs->read_only, true));
  if (ask.network) boot_requests_.push_back(api_requests::network_interface("eth0", guest_tap, guest_mac));
  boot_requests_.push_back(api_requests::start());
  if (const auto locked = vmm_->lock_sockets(); !locked) return start_failed(locked.error());
  no_base_ = "it was booted without dirty tracking";
  send_all(std::exchange(boot_requests_, {}));
}

// One after the other; then the sandbox has started.
void sandbox_actor::send_all(std::vector<api_request> requests) {
  if (requests.empty()) return started();
  auto first = std::move(requests.front());
  requests.erase(requests.begin());
  call(std::move(first), load_deadline, [this, rest = std::move(requests)](result<api_reply> answer) {
    if (state_ == run_state::gone || stopping_) return;
    if (!answer) return start_failed(answer.error());
    send_all(rest);
  });
}

void sandbox_actor::listen_for_uffd() {
  auto listen = [with = with_, socket = folder_.uffd_socket(), self = sandbox_handle(this), this] {
    with->vmm.receive_uffd(socket, call_deadline, [self, this](result<uffd_handover> handover) {
      run_in(self, [this, handover = std::move(handover)]() mutable { when_handed_over(std::move(handover)); });
    });
    return finished{};
  };
  offload(*with_->disk_pool, std::move(listen), [this](finished) { ask_for_uffd(); });
}

void sandbox_actor::ask_for_uffd() {
  if (state_ == run_state::gone || stopping_) return;
  call(api_requests::uffd_wp(folder_.uffd_socket()), call_deadline, [this](result<api_reply> answer) {
    if (state_ == run_state::gone || stopping_ || answer) return;  // a success: when_handed_over() goes on
    start_failed(answer.error());
  });
}

void sandbox_actor::when_handed_over(result<uffd_handover> handover) {
  if (state_ == run_state::gone || stopping_) return;
  if (!handover) return start_failed(std::move(handover).error());
  // Waits for the fault thread.
  auto given = std::make_shared<uffd_handover>(std::move(*handover));
  offload(
      *with_->disk_pool,
      [with = with_, given, memory = memory_] { return with->engine.attach(std::move(*given), memory); },
      [this](result<std::unique_ptr<protected_memory>> attached) { when_attached(std::move(attached)); });
}

void sandbox_actor::when_attached(result<std::unique_ptr<protected_memory>> attached) {
  if (state_ == run_state::gone || stopping_) return;
  if (!attached) return start_failed(std::move(attached).error());
  protected_ = share_offloaded(with_->disk_pool, std::move(*attached));
  resume_first();
}

void sandbox_actor::resume_first() {
  if (const auto locked = vmm_->lock_sockets(); !locked) return start_failed(locked.error());
  call(api_requests::resume(), call_deadline, [this](result<api_reply> answer) {
    if (state_ == run_state::gone || stopping_) return;
    if (!answer) return start_failed(answer.error());
    started();
  });
}

void sandbox_actor::started() {
  state_ = run_state::running;
  const auto pid = vmm_->pid();
  std::optional<std::string> netns;
  if (network_) netns = "/proc/" + std::to_string(pid) + "/ns/net";
  if (starting_.pending()) starting_.deliver(sandbox_started{pid, live_ ? "shared" : "file", netns});
}

void sandbox_actor::start_failed(error failure) {
  if (state_ == run_state::gone) return;
  state_ = run_state::gone;
  offload(
      *with_->disk_pool,
      [id = spec_.id, failure = std::move(failure), group = group_.lock(), log = folder_.log_file()]() mutable {
        if (group && group->has_killed())
          failure = {errc::conflict, 0, "the memory limit is too low: its VMM went over it"};
        if (failure.context.size() > longest_refusal)
          failure.context = failure.context.substr(0, longest_refusal) + "...";
        failure.context = "start " + id + ": " + failure.context;
        if (const auto tail = log_tail(log); !tail.empty()) failure.context += "; its log ends: " + tail;
        return failure;
      },
      [this](const error& whole) {
        const auto reason = to_caf(whole);
        if (starting_.pending()) starting_.deliver(reason);
        quit(reason);
      });
}

}  // namespace coppice
