#include "bench/actors_bench.hpp"

#include <unistd.h>

#include <cstdlib>
#include <future>
#include <thread>

#include "actors/daemon.hpp"
#include "base/log.hpp"
#include "bench/bench_daemon.hpp"
#include "bench/engine_run.hpp"
#include "bench/parsing.hpp"
#include "bench/tapped_services.hpp"
#include "vmm/api_requests.hpp"
#include "vmm/local_vmm_host.hpp"

namespace coppice::bench {
namespace {

namespace fs = std::filesystem;

constexpr double added_target = 100;  // us
constexpr double ratio_target = 1.3;
constexpr std::chrono::seconds api_call_deadline{10};
constexpr std::chrono::seconds fill_time{2};

// Microseconds, as pause_breakdown has them.
struct pause_times {
  double pause = 0, snapshot = 0, rearm = 0, resume = 0, total = 0;
};

// Calls `call` with a completion and waits for the answer.
template <class T, class Call>
result<T> answer_of(Call call) {
  auto promise = std::make_shared<std::promise<result<T>>>();
  call([promise](result<T> answer) { promise->set_value(std::move(answer)); });
  return promise->get_future().get();
}

class actors_bench {
 public:
  explicit actors_bench(const actors_options& options) : options_(options) {}
  actors_bench(const actors_bench&) = delete;
  actors_bench& operator=(const actors_bench&) = delete;
  ~actors_bench();

  result<void> set_up();
  result<void> measure(unsigned number);  // a branch by the actors, and one by the loop
  void start_over() { by_actors_ = by_loop_ = {}; }
  void add_to(report& to) const;
  const vmm_capabilities& vmm() const { return host_->capabilities(); }

 private:
  result<void> start_guest();
  result<pause_times> branch_by_actors(const std::string& tag);
  result<pause_times> branch_by_loop();
  result<void> call(const api_request& request);
  void add_figures(report& to, const std::string& cell, const std::vector<pause_times>& all, bool baseline) const;

  const actors_options& options_;
  fs::path folder_;
  metrics meters_;
  std::unique_ptr<snapshot_store> store_;
  std::unique_ptr<tapped_host> host_;
  std::unique_ptr<tapped_engine> engine_;
  std::shared_ptr<worker_pool> pool_;
  std::unique_ptr<control_plane> plane_;
  std::string sandbox_;
  std::vector<pause_times> by_actors_, by_loop_;
};

actors_bench::~actors_bench() {
  if (plane_) plane_->stop();
  plane_.reset();
  if (pool_) pool_->stop();  // which ends what the actors left: while engine and host are there
  host_.reset();
  engine_.reset();
  store_.reset();
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

result<void> actors_bench::set_up() {
  auto pattern = (fs::absolute(options_.root) / "coppice-bench-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return errno_error("cannot create a folder in " + options_.root.string());
  folder_ = pattern;
  const auto run_dir = folder_ / "run";
  std::error_code failure;
  fs::create_directories(run_dir, failure);
  if (failure) return error{errc::io, failure.value(), "create " + run_dir.string()};
  auto store = snapshot_store::open({folder_ / "root"});
  if (!store) return std::move(store).error();
  store_ = *std::move(store);
  auto built = built_file("bin/coppice-vmm");
  if (options_.vmm.empty() && !built) return std::move(built).error();
  auto loop = event_loop::create();
  if (!loop) return std::move(loop).error();
  auto host = create_vmm_host({options_.vmm.empty() ? *built : fs::absolute(options_.vmm), run_dir, {}, *loop});
  if (!host) return std::move(host).error();
  host_ = std::make_unique<tapped_host>(*std::move(host));
  auto engine = create_copy_engine({});
  if (!engine) return std::move(engine).error();
  engine_ = std::make_unique<tapped_engine>(*std::move(engine));
  pool_ = std::make_shared<worker_pool>(4U);
  plane_ = make_control_plane(std::make_shared<const services>(
      services{*host_, *engine_, *store_, meters_, pool_, run_dir, branch_deadlines{}, daemon_limits{}, *loop}));
  return start_guest();
}

result<void> actors_bench::start_guest() {
  const guest_spec spec{.memory_bytes = options_.memory_bytes, .working_set_bytes = 16 * mib};
  auto kernel = built_file("share/coppice/journal.elf");
  if (!kernel) return std::move(kernel).error();
  create_snapshot_request request;
  request.tag = "base";
  request.kernel = *kernel;
  request.memory_bytes = spec.memory_bytes;
  request.boot_args = boot_args_of(spec);
  auto base = answer_of<snapshot_info>([&](auto done) { plane_->create_snapshot(request, std::move(done)); });
  if (!base) return std::move(base).error();
  auto made = answer_of<std::vector<sandbox_info>>([&](auto done) {
    plane_->create_sandboxes({"base", 1}, std::move(done));
  });
  if (!made) return std::move(made).error();
  sandbox_ = made->front().id;
  std::this_thread::sleep_for(fill_time);
  return {};
}

result<pause_times> actors_bench::branch_by_actors(const std::string& tag) {
  const branch_request request{tag, branch_mode::live, true};
  auto made = answer_of<snapshot_info>([&](auto done) { plane_->branch(sandbox_, request, std::move(done)); });
  if (!made) return std::move(made).error();
  COPPICE_TRY(answer_of<void>([&](auto done) { plane_->delete_snapshot(tag, false, std::move(done)); }));
  if (!made->pause) return error{errc::internal, 0, "branch " + tag + " has no pause"};
  const auto us = [](std::chrono::microseconds time) { return static_cast<double>(time.count()); };
  const pause_breakdown& all = *made->pause;
  return pause_times{us(all.pause), us(all.snapshot), us(all.rearm), us(all.resume), us(all.total)};
}

result<void> actors_bench::call(const api_request& request) {
  const auto answer =
      answer_of<api_reply>([&](auto done) { host_->last_api().call(request, api_call_deadline, std::move(done)); });
  return answer ? result<void>{} : result<void>{answer.error()};
}

// The steps of actors/steps.hpp, one after the other in one thread.
result<pause_times> actors_bench::branch_by_loop() {
  const temporary_file image(folder_ / "loop.image");
  auto file = create_image(image.path(), options_.memory_bytes);
  if (!file) return std::move(file).error();
  const temporary_file vmstate("/dev/shm/coppice-bench-" + std::to_string(::getpid()) + "-vmstate");
  auto session = engine_->last_memory().begin();
  if (!session) return std::move(session).error();
  COPPICE_TRY(wait_for([&](auto done) { (*session)->prearm(std::move(done)); }));
  COPPICE_TRY(call(api_requests::describe()));
  pause_times times;
  const auto timed = [](double& us, auto step) {
    const auto begin = bench_clock::now();
    auto outcome = step();
    us = seconds_since(begin) * 1e6;
    return outcome;
  };
  const auto begin = bench_clock::now();
  auto outcome = timed(times.pause, [&] { return call(api_requests::pause()); });
  if (outcome)
    outcome = timed(times.snapshot, [&] { return call(api_requests::snapshot_vmstate_only(vmstate.path())); });
  if (outcome)
    outcome = timed(times.rearm, [&] { return wait_for([&](auto done) { (*session)->rearm(std::move(done)); }); });
  const auto resumed = timed(times.resume, [&] { return call(api_requests::resume()); });
  times.total = seconds_since(begin) * 1e6;
  if (!outcome) return std::move(outcome).error();
  if (!resumed) return resumed.error();
  const auto copied = wait_for_copy(**session, *std::move(file));
  if (!copied) return copied.error();
  return times;
}

result<void> actors_bench::measure(unsigned number) {
  // In turns, so that neither always finds the disk and the caches as the other left them.
  const bool actors_first = number % 2 == 0;
  const std::string tag = "branch-" + std::to_string(number);
  auto one = actors_first ? branch_by_actors(tag) : branch_by_loop();
  if (!one) return std::move(one).error();
  auto other = actors_first ? branch_by_loop() : branch_by_actors(tag);
  if (!other) return std::move(other).error();
  by_actors_.push_back(actors_first ? *one : *other);
  by_loop_.push_back(actors_first ? *other : *one);
  return {};
}

void actors_bench::add_figures(report& to, const std::string& cell, const std::vector<pause_times>& all,
                               bool baseline) const {
  const auto add = [&](const char* name, double pause_times::*which) {
    std::vector<double> values;
    values.reserve(all.size());
    for (const pause_times& each : all) values.push_back(each.*which);
    to.add({cell, name, baseline ? better::lower_baseline : better::lower, std::move(values)});
  };
  add("total_us", &pause_times::total);
  add("pause_us", &pause_times::pause);
  add("snapshot_us", &pause_times::snapshot);
  add("rearm_us", &pause_times::rearm);
  add("resume_us", &pause_times::resume);
}

void actors_bench::add_to(report& to) const {
  add_figures(to, "actors", by_actors_, false);
  add_figures(to, "plain loop", by_loop_, true);
  std::vector<double> a, b;
  for (const pause_times& each : by_actors_) a.push_back(each.total);
  for (const pause_times& each : by_loop_) b.push_back(each.total);
  const statistics actors = summarize(std::move(a)), loop = summarize(std::move(b));
  to.add({"difference", "median_added_us", better::lower, {actors.median - loop.median}, at_most(added_target)});
  to.add({"difference", "p99_added_us", better::lower, {actors.p99 - loop.p99}});
  to.add({"difference", "median_to_plain_loop", better::lower, {actors.median / loop.median}, at_most(ratio_target)});
}

}  // namespace

result<void> run_actors_bench(const actors_options& options, report& to, nlohmann::json& environment) {
  spdlog::set_level(spdlog::level::warn);  // the daemon's parts report each branch
  actors_bench bench(options);
  COPPICE_TRY(bench.set_up());
  environment["vmm"] = {{"name", bench.vmm().app_name}, {"version", bench.vmm().version}};
  COPPICE_TRY(bench.measure(0));  // the warm-up
  bench.start_over();
  for (unsigned number = 1; number <= options.branches; ++number) COPPICE_TRY(bench.measure(number));
  bench.add_to(to);
  return {};
}

}  // namespace coppice::bench
