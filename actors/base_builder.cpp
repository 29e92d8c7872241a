#include "actors/base_builder.hpp"

#include "actors/boot_checks.hpp"
#include "actors/sandbox_actor.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {
constexpr auto boot_deadline = std::chrono::seconds(60);
constexpr auto end_deadline = std::chrono::seconds(5);
constexpr auto pause_deadline = std::chrono::seconds(5);
constexpr auto end_patience = std::chrono::seconds(1);
constexpr auto disk_deadline = std::chrono::seconds(30);
}  // namespace

base_builder::behavior_type base_builder::make_behavior() {
  set_down_handler([this](const caf::down_msg& down) {
    if (down.reason && down.reason != caf::exit_reason::user_shutdown) fail(from_caf(down.reason));
  });
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const begin_branch&) { check(); },
      [this](const abort_branch& ask) { fail(ask.reason); },
  };
}

void base_builder::on_exit() {
  if (staged_) staged_->given_up = true;
  staged_.reset();
  if (vm_) caf::anon_send_exit(vm_, caf::exit_reason::user_shutdown);
  vm_ = nullptr;
}

void base_builder::check() {
  with_->disk_pool->post([self = coordinator_handle(this), this, request = job_.request] {
    run_in(self, [this, checked = check_boot(request)] {
      if (failed_) return;
      if (checked)
        reserve();
      else
        fail(checked.error());
    });
  });
}

void base_builder::reserve() {
  perform(job_.store, with_->deadlines.of(branch_step::reserve),
          reserve_snapshot{job_.request.tag, job_.request.memory_bytes}, "reserve", &base_builder::boot);
}

void base_builder::boot(const reservation& answer) {
  staged_ = answer.staged;
  vm_ = home_system().spawn<sandbox_actor>(
      with_,
      sandbox_spec{"boot-" + std::to_string(job_.id), boot_spec{job_.request}, job_.fleet, job_.request.network});
  monitor(vm_);
  perform(vm_, boot_deadline, start_sandbox{}, "boot", &base_builder::let_run);
}

void base_builder::let_run(const sandbox_started&) {
  run_in_after(coordinator_handle(this), job_.request.boot_time, [this] {
    if (!failed_) pause();
  });
}

void base_builder::pause() {
  perform(vm_, pause_deadline, pause_vm{pause_deadline}, "pause", &base_builder::snapshot);
}

void base_builder::snapshot(const finished&) {
  const auto within = sized(disk_deadline, job_.request.memory_bytes);
  perform(vm_, within, snapshot_vm{vm_snapshot::full, staged_->vmstate_path, staged_->memory_path, within}, "snapshot",
          &base_builder::end_vm);
}

void base_builder::end_vm(const finished&) {
  demonitor(vm_.address());
  perform(vm_, end_deadline, stop_sandbox{}, "end the VM", &base_builder::publish);
}

void base_builder::publish(const finished&) {
  const auto& vmm = with_->vmm.capabilities();
  snapshot_record record;
  record.tag = job_.request.tag;
  record.backing = "file";
  record.vmm = vmm.name_and_version();
  record.memory_bytes = job_.request.memory_bytes;
  record.vcpus = job_.request.vcpus;
  record.network = job_.request.network;
  if (job_.request.rootfs) record.read_only_drives.push_back(job_.request.rootfs->path.string());
  perform(job_.store, sized(disk_deadline, record.memory_bytes), publish_snapshot{staged_, record}, "publish",
          &base_builder::published);
}

void base_builder::published(const published_snapshot& answer) {
  report(answer.record);
}

// It has ended, mostly: then it is about to tell how, which says more than a connection that broke.
void base_builder::vm_unavailable(error why) {
  run_in_after(coordinator_handle(this), end_patience, [this, why = std::move(why)] { fail(why); });
}

void base_builder::fail(error why) {
  if (failed_) return;
  failed_ = true;
  reason_ = std::move(why);
  reason_.context = "snapshot '" + job_.request.tag + "': " + reason_.context;
  if (staged_) staged_->given_up = true;
  if (!vm_) return drop();
  request(vm_, end_deadline, stop_sandbox{})
      .then([this](const finished&) { drop(); }, [this](const caf::error&) { drop(); });
}

void base_builder::drop() {
  if (!staged_) return report(reason_);
  request(job_.store, disk_deadline, drop_staging{staged_})
      .then([this](const finished&) { report(reason_); }, [this](const caf::error&) { report(reason_); });
}

void base_builder::report(result<record_ptr> outcome) {
  if (outcome)
    spdlog::info("snapshot {} is ready", job_.request.tag);
  else
    spdlog::warn("{}", outcome.error().message());
  send(job_.fleet, branch_ended{job_.id, std::move(outcome), {}, {}});
  quit();
}

}  // namespace coppice
