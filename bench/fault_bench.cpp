#include "bench/fault_bench.hpp"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <numeric>
#include <random>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "bench/bare_handler.hpp"
#include "bench/engine_run.hpp"
#include "bench/local_memory.hpp"

namespace coppice::bench {
namespace {

// Memory under protection, whoever serves it.
class fault_subject {
 public:
  virtual ~fault_subject() = default;
  virtual result<void> arm() = 0;     // every page faults at its next write
  virtual result<void> disarm() = 0;  // none does
  virtual std::uint64_t faults() const = 0;
  virtual std::span<std::byte> memory() const = 0;
};

class bare_subject final : public fault_subject {
 public:
  static result<std::unique_ptr<fault_subject>> create(std::uint64_t size) {
    auto made = std::make_unique<bare_subject>();
    auto memory = make_local_memory(size);
    if (!memory) return std::move(memory).error();
    auto handler = bare_handler::start(std::move(memory->handover));
    if (!handler) return std::move(handler).error();
    made->memory_ = *std::move(memory);
    made->handler_ = *std::move(handler);
    return std::unique_ptr<fault_subject>(std::move(made));
  }
  result<void> arm() override { return handler_->protect(); }
  result<void> disarm() override { return {}; }  // every page has been written
  std::uint64_t faults() const override { return handler_->faults(); }
  std::span<std::byte> memory() const override { return memory_.guest_view.bytes(); }

 private:
  local_memory memory_;
  std::unique_ptr<bare_handler> handler_;
};

class engine_subject final : public fault_subject {
 public:
  static result<std::unique_ptr<fault_subject>> create(std::uint64_t size) {
    auto made = std::make_unique<engine_subject>();
    auto memory = make_local_memory(size);
    if (!memory) return std::move(memory).error();
    copy_engine_options options;
    options.bounce_bytes = std::max(options.bounce_bytes, 2 * size);
    auto engine = create_copy_engine(options);
    if (!engine) return std::move(engine).error();
    auto attached = (*engine)->attach(std::move(memory->handover), memory->ram);
    if (!attached) return std::move(attached).error();
    made->memory_ = *std::move(memory);
    made->engine_ = *std::move(engine);
    made->attached_ = *std::move(attached);
    return std::unique_ptr<fault_subject>(std::move(made));
  }
  result<void> arm() override {
    auto session = attached_->begin();
    if (!session) return std::move(session).error();
    session_ = *std::move(session);
    COPPICE_TRY(wait_for([this](auto done) { session_->prearm(std::move(done)); }));
    return wait_for([this](auto done) { session_->rearm(std::move(done)); });
  }
  result<void> disarm() override {
    wait_for_abort(*session_);
    session_.reset();
    return {};
  }
  std::uint64_t faults() const override { return engine_->stats().faults; }
  std::span<std::byte> memory() const override { return memory_.guest_view.bytes(); }

 private:
  local_memory memory_;
  std::unique_ptr<copy_engine> engine_;
  std::unique_ptr<protected_memory> attached_;
  std::unique_ptr<copy_session> session_;
};

// Binds the calling thread to one of the CPUs that it may use, and frees it at the end. A thread that it starts is
// bound as it is itself then, and stays so.
class cpu_binding {
 public:
  cpu_binding() {
    if (::sched_getaffinity(0, sizeof all_, &all_) != 0) CPU_ZERO(&all_);
  }
  ~cpu_binding() { set(all_); }
  cpu_binding(const cpu_binding&) = delete;
  cpu_binding& operator=(const cpu_binding&) = delete;

  // To the CPU of that number among its own, counted from 0; to the last one if it hasn't as many.
  void bind_to(int number) {
    cpu_set_t one{};
    for (int cpu = 0; cpu < CPU_SETSIZE && number >= 0; ++cpu) {
      if (!CPU_ISSET(cpu, &all_)) continue;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      --number;
    }
    set(one);
  }

 private:
  static void set(const cpu_set_t& cpus) {
    if (CPU_COUNT(&cpus) > 0) ::sched_setaffinity(0, sizeof cpus, &cpus);
  }

  cpu_set_t all_{};
};

std::vector<std::uint32_t> page_order(std::uint64_t pages, bool random, unsigned seed) {
  std::vector<std::uint32_t> order(pages);
  std::iota(order.begin(), order.end(), 0U);
  if (random) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

void write_page(std::span<std::byte> memory, std::uint32_t page) {
  auto* const byte = reinterpret_cast<volatile unsigned char*>(memory.data() + std::uint64_t{page} * page_size);
  *byte = static_cast<unsigned char>(*byte + 1);
}

// Whether the page is write-protected by userfaultfd: bit 57 of its entry (Documentation/admin-guide/mm/pagemap.rst).
bool will_fault(int pagemap, std::span<std::byte> memory, std::uint32_t page) {
  std::uint64_t entry = 0;
  const std::uint64_t index = reinterpret_cast<std::uint64_t>(memory.data()) / page_size + page;
  const auto got = ::pread(pagemap, &entry, sizeof entry, static_cast<off_t>(index * sizeof entry));
  return got == sizeof entry && (entry >> 57 & 1) != 0;
}

struct single_writes {
  std::vector<double> latency_us;       // of the writes that faulted
  std::vector<double> pages_per_fault;  // of each round
};

// Writes each page once and times it.
result<void> time_single_writes(fault_subject& subject, bool random, unsigned round, single_writes& to) {
  const auto order = page_order(subject.memory().size() / page_size, random, round);
  COPPICE_TRY(subject.arm());
  auto pagemap = open_file("/proc/self/pagemap", O_RDONLY);
  if (!pagemap) return std::move(pagemap).error();
  const std::uint64_t first = subject.faults();
  for (const std::uint32_t page : order) {
    const bool faults = will_fault(pagemap->get(), subject.memory(), page);  // not if another fault took it along
    const auto begin = bench_clock::now();
    write_page(subject.memory(), page);
    if (faults) to.latency_us.push_back(seconds_since(begin) * 1e6);
  }
  const std::uint64_t faults = subject.faults() - first;
  if (faults > 0) to.pages_per_fault.push_back(static_cast<double>(order.size()) / static_cast<double>(faults));
  return subject.disarm();
}

struct storm {
  std::vector<double> faults_per_s, pages_per_s;                   // of each round
  std::vector<double> timed, median_us, p90_us, p99_us, worst_us;  // of each round: single faults within it

  void add_latencies(std::vector<double> of_round) {
    const statistics all = summarize(std::move(of_round));
    timed.push_back(static_cast<double>(all.count));
    median_us.push_back(all.median);
    p90_us.push_back(all.p90);
    p99_us.push_back(all.p99);
    worst_us.push_back(all.worst);
  }
};

// `writers` threads call `write` (with the writer's number) for a share of the pages each, in random order, all at
// once. Returns the seconds that it took. REQUIRES: `subject` is armed.
template <class Write>
double run_writers(const fault_subject& subject, unsigned writers, unsigned round, Write write) {
  const auto order = page_order(subject.memory().size() / page_size, true, 1000 + round);
  std::barrier ready(static_cast<std::ptrdiff_t>(writers) + 1);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < writers; ++i) {
    threads.emplace_back([&, i] {
      ready.arrive_and_wait();
      for (std::size_t at = i; at < order.size(); at += writers) write(i, order[at]);
    });
  }
  const auto begin = bench_clock::now();
  ready.arrive_and_wait();
  for (std::thread& each : threads) each.join();
  return seconds_since(begin);
}

// How many faults a second: nothing but writes.
result<void> time_storm(fault_subject& subject, unsigned writers, unsigned round, storm& to) {
  COPPICE_TRY(subject.arm());
  const std::uint64_t before = subject.faults();
  const double seconds =
      run_writers(subject, writers, round, [&](unsigned, std::uint32_t page) { write_page(subject.memory(), page); });
  to.faults_per_s.push_back(static_cast<double>(subject.faults() - before) / seconds);
  to.pages_per_s.push_back(static_cast<double>(subject.memory().size()) / page_size / seconds);
  return subject.disarm();
}

// How long each fault of a storm takes. A storm of its own: looking which writes will fault slows it down a little.
result<void> time_faults_of_storm(fault_subject& subject, unsigned writers, unsigned round, storm& to) {
  auto pagemap = open_file("/proc/self/pagemap", O_RDONLY);
  if (!pagemap) return std::move(pagemap).error();
  COPPICE_TRY(subject.arm());
  std::vector<std::vector<double>> latency_us(writers);
  run_writers(subject, writers, round, [&](unsigned writer, std::uint32_t page) {
    const bool faults = will_fault(pagemap->get(), subject.memory(), page);
    const auto begin = bench_clock::now();
    write_page(subject.memory(), page);
    if (faults) latency_us[writer].push_back(seconds_since(begin) * 1e6);
  });
  std::vector<double> all;
  for (const auto& each : latency_us) all.insert(all.end(), each.begin(), each.end());
  to.add_latencies(std::move(all));
  return subject.disarm();
}

result<void> bench_single(fault_subject& bare, fault_subject& engine, bool random, unsigned rounds, report& to) {
  single_writes of_bare, of_engine;
  for (unsigned round = 0; round <= rounds; ++round) {
    if (round == 1) of_bare = of_engine = {};  // round 0 is the warm-up
    COPPICE_TRY(time_single_writes(bare, random, round, of_bare));
    COPPICE_TRY(time_single_writes(engine, random, round, of_engine));
  }
  const std::string cell = random ? "1 writer, random" : "1 writer, sequential";
  const double ratio = summarize(of_engine.latency_us).median / summarize(of_bare.latency_us).median;
  to.add({cell, "bare_fault_us", better::lower_baseline, std::move(of_bare.latency_us)});
  to.add({cell, "fault_us", better::lower, std::move(of_engine.latency_us)});
  to.add({cell, "fault_to_bare_ratio", better::lower, {ratio}});
  to.add({cell, "pages_per_fault", better::higher, std::move(of_engine.pages_per_fault)});
  return {};
}

result<void> bench_storm(fault_subject& bare, fault_subject& engine, unsigned writers, unsigned rounds, report& to) {
  storm of_bare, of_engine;
  for (unsigned round = 0; round <= rounds; ++round) {
    if (round == 1) of_bare = of_engine = {};
    COPPICE_TRY(time_storm(bare, writers, round, of_bare));
    COPPICE_TRY(time_storm(engine, writers, round, of_engine));
    COPPICE_TRY(time_faults_of_storm(bare, writers, round, of_bare));
    COPPICE_TRY(time_faults_of_storm(engine, writers, round, of_engine));
  }
  const std::string cell = "storm of " + std::to_string(writers);
  to.add({cell, "bare_faults_per_s", better::higher_baseline, std::move(of_bare.faults_per_s)});
  to.add({cell, "faults_per_s", better::higher_baseline, std::move(of_engine.faults_per_s)});
  to.add({cell, "pages_lifted_per_s", better::higher, std::move(of_engine.pages_per_s)});
  const auto add_latencies = [&](const std::string& prefix, storm& of, better direction) {
    const std::string note = "one value a round, of " + short_number(summarize(of.timed).median) + " faults (median)";
    to.add({cell, prefix + "storm_fault_median_us", direction, std::move(of.median_us), std::nullopt, note});
    to.add({cell, prefix + "storm_fault_p90_us", direction, std::move(of.p90_us)});
    to.add({cell, prefix + "storm_fault_p99_us", direction, std::move(of.p99_us)});
    to.add({cell, prefix + "storm_fault_worst_us", direction, std::move(of.worst_us)});
    to.add({cell, prefix + "storm_faults_timed", better::higher_baseline, std::move(of.timed)});
  };
  add_latencies("bare_", of_bare, better::lower_baseline);
  add_latencies("", of_engine, better::lower);
  return {};
}

}  // namespace

result<void> run_fault_bench(const fault_options& options, report& to) {
  auto bare = bare_subject::create(options.memory_bytes);
  if (!bare) return std::move(bare).error();
  auto engine = engine_subject::create(options.memory_bytes);
  if (!engine) return std::move(engine).error();
  for (const bool random : {true, false}) COPPICE_TRY(bench_single(**bare, **engine, random, options.rounds, to));
  for (unsigned writers = 1; writers <= options.most_writers; ++writers)
    COPPICE_TRY(bench_storm(**bare, **engine, writers, options.rounds, to));
  return {};
}

result<std::vector<double>> time_bare_faults(std::uint64_t memory_bytes) {
  cpu_binding binding;
  binding.bind_to(1);  // the handler, which is started now
  auto bare = bare_subject::create(memory_bytes);
  if (!bare) return std::move(bare).error();
  binding.bind_to(0);
  single_writes warm_up, timed;
  COPPICE_TRY(time_single_writes(**bare, true, 0, warm_up));
  COPPICE_TRY(time_single_writes(**bare, true, 1, timed));
  return std::move(timed.latency_us);
}

}  // namespace coppice::bench
