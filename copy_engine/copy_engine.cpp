#include "copy_engine/copy_engine.hpp"

#include <algorithm>
#include <future>

#include "copy_engine/copy_thread.hpp"
#include "copy_engine/epoch_steps.hpp"
#include "copy_engine/fault_thread.hpp"

namespace coppice {
namespace {

// The engine's threads. Everything that is attached holds a reference, so they outlive whatever they serve.
struct engine_threads {
  engine_counters counters;
  std::unique_ptr<fault_thread> faults;
  std::unique_ptr<copy_thread> copier;  // destroyed first: it uses the fault thread
  unsigned max_epochs_per_vm = 0;
};

// Runs `work` on the fault thread and waits for it.
template <class F>
auto run_and_wait(fault_thread& thread, F work) {
  using value = decltype(work());
  std::promise<value> answer;
  thread.post([&] {
    if constexpr (std::is_void_v<value>) {
      work();
      answer.set_value();
    } else {
      answer.set_value(work());
    }
  });
  return answer.get_future().get();
}

class session final : public copy_session {
 public:
  session(std::shared_ptr<engine_threads> threads, std::shared_ptr<memory_epoch> epoch,
          std::shared_ptr<std::atomic<unsigned>> open_sessions)
      : threads_(std::move(threads)), epoch_(std::move(epoch)), open_sessions_(std::move(open_sessions)) {}

  ~session() override {
    std::promise<void> ended;
    abort([&ended] { ended.set_value(); });
    ended.get_future().wait();
    open_sessions_->fetch_sub(1);
  }

  void prearm(completion done) override {
    threads_->faults->post(
        [epoch = epoch_, done = std::move(done)]() mutable { prearm_epoch(epoch, std::move(done)); });
  }

  void rearm(completion done) override {
    threads_->faults->post([epoch = epoch_, done = std::move(done)] { rearm_epoch(*epoch, done); });
  }

  void copy(unique_fd image, copy_completion done) override {
    // By way of the fault thread: it alone knows the phase, and after its answer it cannot be closed in between.
    threads_->faults->post(
        [this, epoch = epoch_, image = std::make_shared<unique_fd>(std::move(image)), done = std::move(done)] {
          if (epoch->given_up) return done(*epoch->given_up);
          if (epoch->phase != epoch_phase::active) {
            return done(epoch->phase == epoch_phase::closed ? error{errc::cancelled, 0, "the branch was given up"}
                                                            : error{errc::internal, 0, "copy before the re-arm"});
          }
          copy_thread& copier = *threads_->copier;
          copier.post([&copier, epoch, image, done] { copier.begin(epoch, std::move(*image), done); });
        });
  }

  void abort(std::function<void()> done) override {
    // ~session waits for this: it need not, and must not, own the threads.
    threads_->faults->post([&copier = *threads_->copier, epoch = epoch_, done = std::move(done)] {
      close_epoch(*epoch, [&copier, epoch, done] {
        copier.post([&copier, epoch, done] {
          copier.end(epoch, {errc::cancelled, 0, "the branch was given up"}, done);
        });
      });
    });
  }

  copy_progress progress() const noexcept override {
    return {epoch_->settled_pages.load(std::memory_order_relaxed), epoch_->states.size(),
            epoch_->waits_for_limit.load(std::memory_order_relaxed)};
  }

 private:
  const std::shared_ptr<engine_threads> threads_;
  const std::shared_ptr<memory_epoch> epoch_;
  const std::shared_ptr<std::atomic<unsigned>> open_sessions_;
};

class attached_memory final : public protected_memory {
 public:
  attached_memory(std::shared_ptr<engine_threads> threads, std::shared_ptr<attached_vm> vm)
      : threads_(std::move(threads)), vm_(std::move(vm)), memory_(vm_->memory) {}

  ~attached_memory() override {
    const auto left = run_and_wait(*threads_->faults, [this] { return threads_->faults->detach(*vm_); });
    copy_thread& copier = *threads_->copier;
    for (const auto& epoch : left) {
      copier.post([&copier, epoch] { copier.end(epoch, {errc::unavailable, 0, "the VM is gone"}, [] {}); });
    }
  }

  result<std::unique_ptr<copy_session>> begin() override {
    if (open_sessions_->fetch_add(1) >= threads_->max_epochs_per_vm) {
      open_sessions_->fetch_sub(1);
      return error{errc::unavailable, 0,
                   "already " + std::to_string(threads_->max_epochs_per_vm) +
                       " branches of this VM are being copied: try again later"};
    }
    copy_thread* const copier = threads_->copier.get();
    auto epoch = std::make_shared<memory_epoch>(
        vm_, memory_, [copier] { copier->wake(); },
        [copier](const std::shared_ptr<memory_epoch>& failed, const error& why) {
          copier->post([copier, failed, why] { copier->fail(failed, why); });
        });
    return std::unique_ptr<copy_session>(new session(threads_, std::move(epoch), open_sessions_));
  }

 private:
  const std::shared_ptr<engine_threads> threads_;
  const std::shared_ptr<attached_vm> vm_;
  const std::shared_ptr<guest_memory> memory_;
  const std::shared_ptr<std::atomic<unsigned>> open_sessions_ = std::make_shared<std::atomic<unsigned>>(0);
};

// Every byte of RAM in exactly one region, all of it page-aligned; on success sorted by file offset.
result<void> check_regions(std::vector<memory_region>& regions, std::uint64_t memory_size) {
  std::sort(regions.begin(), regions.end(),
            [](const memory_region& left, const memory_region& right) { return left.file_offset < right.file_offset; });
  std::uint64_t covered = 0;
  for (const memory_region& region : regions) {
    if (region.file_offset != covered || region.size == 0 || region.size > memory_size - covered ||
        region.size % page_size != 0 || region.host_address % page_size != 0) {
      return error{errc::invalid_argument, 0, "the VMM's memory regions do not match its memory file"};
    }
    covered += region.size;
  }
  if (covered != memory_size) {
    return error{errc::invalid_argument, 0,
                 "the VMM's memory regions cover " + format_bytes(covered) + " of " + format_bytes(memory_size)};
  }
  return {};
}

class engine final : public copy_engine {
 public:
  explicit engine(std::shared_ptr<engine_threads> threads) : threads_(std::move(threads)) {}

  void set_rates(const copy_rates& rates) override {
    copy_thread& copier = *threads_->copier;  // also woken where it waits for what the old limits said
    copier.post([&copier, rates] { copier.set_rates(rates); });
  }

  result<std::unique_ptr<protected_memory>> attach(uffd_handover handover,
                                                   std::shared_ptr<guest_memory> memory) override {
    COPPICE_TRY(check_regions(handover.regions, memory->size()));
    auto vm = std::make_shared<attached_vm>();
    vm->memory = std::move(memory);
    vm->regions = std::move(handover.regions);
    const int uffd = handover.uffd.get();
    vm->protection = std::make_shared<uffd_protection>(std::move(handover.uffd));
    COPPICE_TRY(run_and_wait(*threads_->faults, [&] { return threads_->faults->attach(vm, uffd); }));
    return std::unique_ptr<protected_memory>(new attached_memory(threads_, std::move(vm)));
  }

  copy_engine_stats stats() const override {
    const engine_counters& counters = threads_->counters;
    copy_engine_stats stats;
    stats.faults = counters.faults.load(std::memory_order_relaxed);
    stats.captured_pages = counters.captured_pages.load(std::memory_order_relaxed);
    stats.bulk_pages = counters.bulk_pages.load(std::memory_order_relaxed);
    stats.written_bytes = counters.written_bytes.load(std::memory_order_relaxed);
    stats.deferred_faults = counters.deferred_faults.load(std::memory_order_relaxed);
    stats.saved_ahead_pages = counters.saved_ahead_pages.load(std::memory_order_relaxed);
    stats.bounce_bytes_used = threads_->faults->pool().used_bytes();
    for (const auto& count : counters.fault_counts)
      stats.fault_service_counts.push_back(count.load(std::memory_order_relaxed));
    stats.fault_service_seconds =
        static_cast<double>(counters.fault_nanoseconds.load(std::memory_order_relaxed)) * 1e-9;
    return stats;
  }

 private:
  std::shared_ptr<engine_threads> threads_;
};

}  // namespace

const std::vector<double>& fault_service_bounds() {
  static const std::vector<double> bounds(engine_counters::fault_bounds.begin(), engine_counters::fault_bounds.end());
  return bounds;
}

result<std::unique_ptr<copy_engine>> create_copy_engine(const copy_engine_options& options) {
  if (options.bounce_bytes < page_size) {
    return error{errc::invalid_argument, 0, "the copy engine needs at least one page of bounce memory"};
  }
  auto threads = std::make_shared<engine_threads>();
  threads->max_epochs_per_vm = options.max_epochs_per_vm;
  auto faults = fault_thread::start(options, threads->counters);
  if (!faults) return std::move(faults).error();
  threads->faults = std::move(*faults);
  auto copier = copy_thread::start(options, *threads->faults, threads->counters);
  if (!copier) return std::move(copier).error();
  threads->copier = std::move(*copier);
  return std::unique_ptr<copy_engine>(new engine(std::move(threads)));
}

}  // namespace coppice
