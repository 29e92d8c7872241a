#include "copy_engine/copy_thread.hpp"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "copy_engine/epoch_steps.hpp"

namespace coppice {

result<std::unique_ptr<copy_thread>> copy_thread::start(const copy_engine_options& options, fault_thread& faults,
                                                        engine_counters& counters) {
  auto wakeup = task_queue::make_eventfd();
  if (!wakeup) return std::move(wakeup).error();
  std::unique_ptr<copy_thread> made(new copy_thread(std::move(*wakeup), options, faults));
  auto ring = copy_ring::create(made->tasks_.fd(), [raw = made.get()] { raw->tasks_.clear_wakeups(); });
  if (!ring) return std::move(ring).error();
  made->ring_ = std::move(*ring);
  made->surroundings_.emplace(copy_surroundings{*made->ring_, faults.pool(), counters, made->host_limit_,
                                                options.hot_set_time, [&faults] { faults.notify_settled(); }});
  made->thread_ = std::thread([raw = made.get()] { raw->run(); });
  return made;
}

copy_thread::copy_thread(unique_fd wakeup, const copy_engine_options& options, fault_thread& faults)
    : tasks_(std::move(wakeup)),
      faults_(faults),
      branch_bytes_per_second_(options.rates.branch_bytes_per_second),
      host_limit_(options.rates.host_bytes_per_second) {}

copy_thread::~copy_thread() {
  if (!thread_.joinable()) return;
  post([this] { stopping_ = true; });
  thread_.join();
}

void copy_thread::run() {
  ::pthread_setname_np(::pthread_self(), "coppice-copy");
  copy_priority priority;
  while (!stopping_) {
    tasks_.run_all();
    priority.reconsider(engine_clock::now());
    const auto more_in = give_turns();
    close_finished_jobs();
    hurry_if_need_be(priority);
    faults_.notify_released();  // by what needed no write
    ring_->wait(stopping_ ? std::chrono::nanoseconds(0) : more_in);
    faults_.notify_released();
  }
}

std::optional<std::chrono::nanoseconds> copy_thread::give_turns() {
  std::optional<std::chrono::nanoseconds> more_in;
  if (!jobs_.empty()) more_in = copy_priority::look_every;  // workers that write may be starving
  auto next = jobs_.begin();
  for (std::size_t left = jobs_.size(); left > 0; --left) {
    const auto at = next++;
    const auto turn = (*at)->work();
    // The others come first next time: a limit of the host is shared.
    if (turn.has_written) jobs_.splice(jobs_.end(), jobs_, at);
    if (turn.more_in) more_in = std::min(more_in.value_or(*turn.more_in), *turn.more_in);
  }
  return more_in;
}

void copy_thread::close_finished_jobs() {
  for (auto next = jobs_.begin(); next != jobs_.end();) {
    const auto at = next++;
    const auto job = *at;
    if (job->is_over()) have_epoch_closed(job);
    if (!job->is_drained()) continue;
    jobs_.erase(at);
    release_captures(*job->epoch(), faults_.pool());
    faults_.post([&faults = faults_] { faults.trim_pool(); });
    job->finish();
  }
}

void copy_thread::have_epoch_closed(const std::shared_ptr<copy_job>& job) {
  job->begin_closing();
  faults_.post([this, job] {
    // Asked where it is decided: the epoch may have ended while its last pages were read, which are too new then.
    const auto over = job->epoch()->why_over();
    close_epoch(*job->epoch(), [this, job, over] { post([job, over] { job->closed(over); }); });
  });
}

std::shared_ptr<copy_job> copy_thread::job_of(const std::shared_ptr<memory_epoch>& epoch) const {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) { return job->epoch() == epoch; });
  return found != jobs_.end() ? *found : nullptr;
}

void copy_thread::begin(std::shared_ptr<memory_epoch> epoch, unique_fd image, copy_session::copy_completion done) {
  jobs_.push_back(std::make_shared<copy_job>(*surroundings_, std::move(epoch), std::move(image),
                                             branch_bytes_per_second_, std::move(done)));
}

void copy_thread::end(const std::shared_ptr<memory_epoch>& epoch, const error& reason, std::function<void()> done) {
  if (const auto job = job_of(epoch)) return job->end(reason, std::move(done));
  release_captures(*epoch, faults_.pool());
  done();
}

void copy_thread::fail(const std::shared_ptr<memory_epoch>& epoch, const error& reason) {
  if (const auto job = job_of(epoch)) job->fail(reason);
}

void copy_thread::set_rates(const copy_rates& rates) {
  host_limit_.set(rates.host_bytes_per_second, engine_clock::now());
  branch_bytes_per_second_ = rates.branch_bytes_per_second;
  for (const auto& job : jobs_) job->set_rate(branch_bytes_per_second_);
}

void copy_thread::hurry_if_need_be(copy_priority& priority) {
  const bool wanted = std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->must_hurry(); });
  if (wanted != priority.hurries()) {
    priority.hurry(wanted);
    if (wanted) return hurry_on(cpu_bounds_.stay_here());
    cpu_bounds_.release();
    hurry_on(std::nullopt);
  } else if (hurries_on_ && priority.is_crowded(engine_clock::now())) {
    cpu_bounds_.keep_off({*hurries_on_});
    hurry_on(cpu_bounds_.stay_here());
  }
}

void copy_thread::hurry_on(std::optional<int> cpu) {
  const auto before = std::exchange(hurries_on_, cpu);
  if (before == cpu) return;
  faults_.post([&faults = faults_, before, cpu] {
    if (before) faults.keep_off(*before, false);
    if (cpu) faults.keep_off(*cpu, true);
  });
}

}  // namespace coppice
