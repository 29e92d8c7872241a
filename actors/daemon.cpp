#include "actors/daemon.hpp"

#include "actors/run_folder.hpp"
#include "base/log.hpp"
#include "vmm/local_vmm_host.hpp"

namespace coppice {
namespace {

// The parts, in the order in which they are opened; closed in the opposite one.
class owning_control_plane final : public control_plane {
 public:
  struct parts {
    std::shared_ptr<event_loop> loop;
    std::unique_ptr<snapshot_store> store;
    std::shared_ptr<jailer> jails;
    std::unique_ptr<vmm_host> vmm;
    std::unique_ptr<copy_engine> engine;
    std::shared_ptr<worker_pool> disk_pool;
    std::shared_ptr<worker_pool> image_pool;
    std::shared_ptr<const memory_cgroups> cgroups;
    std::filesystem::path run_dir;
  };

  owning_control_plane(parts all, const daemon_options& options, metrics& meters) : parts_(std::move(all)) {
    inner_ = make_control_plane(std::make_shared<const services>(
        services{*parts_.vmm, *parts_.engine, *parts_.store, meters, parts_.disk_pool, parts_.run_dir,
                 options.deadlines, options.limits, parts_.loop, parts_.image_pool, parts_.cgroups}));
  }
  ~owning_control_plane() override {
    inner_.reset();  // the actors end, and hand what they own to the pools
    parts_.image_pool->stop();
    parts_.disk_pool->stop();  // which destroy it, while engine, VMM host and store are there
    std::error_code ignored;
    std::filesystem::remove_all(parts_.run_dir, ignored);
  }

  const vmm_capabilities& vmm() const noexcept override { return inner_->vmm(); }
  void list_snapshots(completion<std::vector<snapshot_info>> done) override { inner_->list_snapshots(std::move(done)); }
  void snapshot(const std::string& tag, completion<snapshot_info> done) override {
    inner_->snapshot(tag, std::move(done));
  }
  void create_snapshot(create_snapshot_request request, completion<snapshot_info> done) override {
    inner_->create_snapshot(std::move(request), std::move(done));
  }
  void delete_snapshot(const std::string& tag, bool cascade, completion<void> done) override {
    inner_->delete_snapshot(tag, cascade, std::move(done));
  }
  void verify_snapshot(const std::string& tag, completion<verify_report> done) override {
    inner_->verify_snapshot(tag, std::move(done));
  }
  void list_sandboxes(completion<std::vector<sandbox_info>> done) override { inner_->list_sandboxes(std::move(done)); }
  void sandbox(const std::string& id, completion<sandbox_info> done) override { inner_->sandbox(id, std::move(done)); }
  void create_sandboxes(create_sandboxes_request request, completion<std::vector<sandbox_info>> done) override {
    inner_->create_sandboxes(std::move(request), std::move(done));
  }
  void delete_sandbox(const std::string& id, completion<void> done) override {
    inner_->delete_sandbox(id, std::move(done));
  }
  void branch(const std::string& id, branch_request request, completion<snapshot_info> done) override {
    inner_->branch(id, std::move(request), std::move(done));
  }
  void journal(const std::string& id, bool reset, completion<journal_status> done) override {
    inner_->journal(id, reset, std::move(done));
  }
  void open_guest_socket(const std::string& id, completion<guest_socket> done) override {
    inner_->open_guest_socket(id, std::move(done));
  }
  void subscribe(std::function<void(const plane_event&)> listener) override { inner_->subscribe(std::move(listener)); }
  std::string metrics_text() override { return inner_->metrics_text(); }
  void set_copy_rates(const copy_rates& rates) override { inner_->set_copy_rates(rates); }
  void set_limits(const daemon_limits& limits) override { inner_->set_limits(limits); }
  void stop() override { inner_->stop(); }

 private:
  parts parts_;
  std::unique_ptr<control_plane> inner_;
};

}  // namespace

result<std::unique_ptr<control_plane>> start_daemon(const daemon_options& options, metrics& meters) {
  owning_control_plane::parts all;
  std::error_code failure;
  const auto root = std::filesystem::absolute(options.root, failure);
  if (failure) return error{errc::io, failure.value(), "root " + options.root.string()};
  all.run_dir = root / "run";
  COPPICE_TRY(check_run_dir(all.run_dir));
  auto store = snapshot_store::open({root, options.keep_free_bytes});
  if (!store) return std::move(store).error();
  all.store = std::move(*store);
  for (const auto& removed : all.store->removed_at_open()) spdlog::warn("removed what a crash left: {}", removed);
  for (const auto& damaged : all.store->unreadable_at_open()) spdlog::warn("damaged, not listed: {}", damaged);
  std::filesystem::remove_all(all.run_dir, failure);  // ours alone: the store holds the root's lock
  std::filesystem::create_directories(all.run_dir, failure);
  if (failure) return error{errc::io, failure.value(), "create " + all.run_dir.string()};
  auto loop = event_loop::create();
  if (!loop) return std::move(loop).error();
  all.loop = std::move(*loop);
  if (!options.jailer.empty()) {
    auto made = jailer::create({options.jailer,
                                options.vmm,
                                options.jail_first_uid,
                                root / "jail",
                                {all.run_dir, all.store->vmstate_folder()},
                                "/proc/self/exe"});
    if (!made) return std::move(made).error();
    all.jails = *std::move(made);
  }
  auto vmm = create_vmm_host({options.vmm, all.run_dir, {}, all.loop, all.jails, options.live_seccomp_filter});
  if (!vmm) return std::move(vmm).error();
  all.vmm = std::move(*vmm);
  if (!options.cgroup.empty()) {
    auto cgroups = memory_cgroups::open(options.cgroup);
    if (!cgroups) return std::move(cgroups).error();
    all.cgroups = *std::move(cgroups);
  }
  auto engine = create_copy_engine(options.engine);
  if (!engine) return std::move(engine).error();
  all.engine = std::move(*engine);
  all.disk_pool = std::make_shared<worker_pool>(options.workers);
  all.image_pool = std::make_shared<worker_pool>(options.workers);
  const auto& found = all.vmm->capabilities();
  spdlog::info("{} {}; live branches: {}", found.app_name, found.version,
               found.live() ? "yes" : "no, it lacks " + found.missing_for_live());
  return std::unique_ptr<control_plane>(std::make_unique<owning_control_plane>(std::move(all), options, meters));
}

}  // namespace coppice
