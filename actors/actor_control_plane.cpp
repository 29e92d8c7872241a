#include "control_plane/control_plane.hpp"

#include <atomic>
#include <caf/actor_system.hpp>
#include <future>

#include "actors/daemon.hpp"
#include "actors/fleet.hpp"
#include "actors/loop_scheduler.hpp"

namespace coppice {

namespace {

constexpr auto fleet_patience = std::chrono::milliseconds(3500);

class actor_control_plane final : public control_plane {
 public:
  explicit actor_control_plane(services_ptr with)
      : with_(std::move(with)), settings_(with_->loop), system_(settings_), fleet_(system_.spawn<fleet>(with_)) {
    const auto& found = with_->vmm.capabilities();
    with_->meters.build_info(COPPICE_VERSION, found.name_and_version());
  }

  ~actor_control_plane() override {
    stop();
    caf::anon_send_exit(fleet_, caf::exit_reason::user_shutdown);
    fleet_ = nullptr;
  }

  const vmm_capabilities& vmm() const noexcept override { return with_->vmm.capabilities(); }

  void list_snapshots(completion<std::vector<snapshot_info>> done) override {
    send(ask::snapshots{reply<std::vector<snapshot_info>>(std::move(done))});
  }
  void snapshot(const std::string& tag, completion<snapshot_info> done) override {
    send(ask::snapshot{tag, reply<snapshot_info>(std::move(done))});
  }
  void create_snapshot(create_snapshot_request request, completion<snapshot_info> done) override {
    send(ask::create_snapshot{std::move(request), reply<snapshot_info>(std::move(done))});
  }
  void delete_snapshot(const std::string& tag, bool cascade, completion<void> done) override {
    send(ask::delete_snapshot{tag, cascade, reply<void>(std::move(done))});
  }
  void verify_snapshot(const std::string& tag, completion<verify_report> done) override {
    send(ask::verify{tag, reply<verify_report>(std::move(done))});
  }
  void list_sandboxes(completion<std::vector<sandbox_info>> done) override {
    send(ask::sandboxes{reply<std::vector<sandbox_info>>(std::move(done))});
  }
  void sandbox(const std::string& id, completion<sandbox_info> done) override {
    send(ask::sandbox{id, reply<sandbox_info>(std::move(done))});
  }
  void create_sandboxes(create_sandboxes_request request, completion<std::vector<sandbox_info>> done) override {
    send(ask::create_sandboxes{std::move(request), reply<std::vector<sandbox_info>>(std::move(done))});
  }
  void delete_sandbox(const std::string& id, completion<void> done) override {
    send(ask::delete_sandbox{id, reply<void>(std::move(done))});
  }
  void branch(const std::string& id, branch_request request, completion<snapshot_info> done) override {
    send(ask::branch{id, std::move(request), reply<snapshot_info>(std::move(done))});
  }
  void journal(const std::string& id, bool reset, completion<journal_status> done) override {
    send(ask::journal{id, reset, reply<journal_status>(std::move(done))});
  }

  void open_guest_socket(const std::string& id, completion<guest_socket> done) override {
    send(ask::guest_socket{id, reply<coppice::guest_socket>(std::move(done))});
  }

  void subscribe(std::function<void(const plane_event&)> listener) override {
    with_->events->subscribe(std::move(listener));
  }

  std::string metrics_text() override {
    auto& meters = with_->meters;
    const auto stats = with_->engine.stats();
    meters.set_faults_total(stats.faults);
    meters.set_deferred_faults_total(stats.deferred_faults);
    meters.set_saved_ahead_pages_total(stats.saved_ahead_pages);
    meters.set_written_bytes_total(stats.written_bytes);
    meters.set_bounce_bytes(stats.bounce_bytes_used);
    const auto& bounds = fault_service_bounds();
    if (stats.fault_service_counts.size() == bounds.size() + 1)
      meters.set_fault_service(bounds, stats.fault_service_counts, stats.fault_service_seconds);
    const auto usage = with_->store.usage();
    meters.store_usage(usage.free_bytes, usage.reserved_bytes, usage.size_bytes, usage.snapshots);
    meters.queue_length("disk", with_->disk_pool->queued());
    meters.process(read_process_figures());
    return meters.text();
  }

  void set_copy_rates(const copy_rates& rates) override { with_->engine.set_rates(rates); }

  void set_limits(const daemon_limits& limits) override { send(coppice::set_limits{limits}); }

  void stop() override {
    if (stopped_.exchange(true)) return;
    auto all_down = std::make_shared<std::promise<void>>();
    auto waiting = all_down->get_future();
    caf::anon_send(fleet_, ask::stop{reply<void>([all_down](const result<void>&) { all_down->set_value(); })});
    waiting.wait_for(fleet_patience);
  }

 private:
  // A message that is dropped (the fleet is gone, or we are stopped) completes its call by its destruction.
  template <class Message>
  void send(Message message) {
    if (!stopped_) caf::anon_send(fleet_, std::move(message));
  }

  const services_ptr with_;
  loop_settings settings_;
  caf::actor_system system_;
  fleet_handle fleet_;
  std::atomic<bool> stopped_{false};
};

}  // namespace

std::unique_ptr<control_plane> make_control_plane(services_ptr with) {
  return std::make_unique<actor_control_plane>(std::move(with));
}

}  // namespace coppice
