#include "reference_vmm/thread_vm.hpp"

#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

#include "base/units.hpp"
#include "journal_guest/journal_options.hpp"

namespace coppice::reference {
namespace {

using journal::lane_header;

constexpr std::uint64_t cycles_per_us = 2000;  // of the time stamp counter, about

// Guest RAM is also read by other processes, and by this one's API thread: every access is atomic.
std::uint64_t load(std::uint64_t& word) {
  return std::atomic_ref(word).load(std::memory_order_relaxed);
}
void store(std::uint64_t& word, std::uint64_t value) {
  std::atomic_ref(word).store(value, std::memory_order_release);
}

// One lane of the journal on one thread. Its "register" is next_step_, which is not in guest RAM.
class lane_thread {
 public:
  lane_thread(guest_ram& ram, unsigned lane) : ram_(ram), lane_(lane), thread_([this] { thread_main(); }) {}
  lane_thread(const lane_thread&) = delete;
  lane_thread& operator=(const lane_thread&) = delete;
  ~lane_thread() {
    set_wish(wish::end);
    thread_.join();
  }

  void resume() { set_wish(wish::run); }
  void request_pause() { set_wish(wish::pause); }
  void wait_paused() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !running_; });
  }

  // REQUIRES: paused.
  std::uint64_t next_step() const { return next_step_; }
  void set_next_step(std::uint64_t step) { next_step_ = step; }

 private:
  enum class wish { pause, run, end };

  void set_wish(wish to) {
    const std::lock_guard lock(mutex_);
    wish_ = to;
    if (to == wish::run) running_ = true;
    changed_.notify_all();
  }

  void thread_main() {
    std::unique_lock lock(mutex_);
    while (wish_ != wish::end) {
      if (wish_ == wish::pause) {
        running_ = false;
        changed_.notify_all();
        changed_.wait(lock);
        continue;
      }
      lock.unlock();
      run();
      lock.lock();
    }
  }

  void run();
  // Whether it is time for the next step; false at a pause, too.
  bool wait_for_step(std::uint64_t pace, std::uint64_t rest_us);
  void note_time(lane_header& header, std::uint64_t pace, std::uint64_t rest_us);

  guest_ram& ram_;
  unsigned lane_;
  std::uint64_t next_step_ = 1;
  std::uint64_t before_ = 0;  // TSC at the end of the step before
  std::chrono::steady_clock::time_point rest_until_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<wish> wish_{wish::pause};
  bool running_ = false;
  std::thread thread_;
};

bool lane_thread::wait_for_step(std::uint64_t pace, std::uint64_t rest_us) {
  if (rest_us != 0) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, rest_until_, [&] { return wish_ != wish::run; });
  }
  while (wish_.load(std::memory_order_relaxed) == wish::run) {
    if (__rdtsc() - before_ >= pace) return true;
  }
  return false;
}

void lane_thread::note_time(lane_header& header, std::uint64_t pace, std::uint64_t rest_us) {
  const std::uint64_t now = __rdtsc();
  const std::uint64_t expected = pace + rest_us * cycles_per_us;
  const std::uint64_t cycles = now - before_ > expected ? now - before_ - expected : 0;
  if (load(header.reset_request) != load(header.reset_done)) {
    store(header.longest_stall, 0);
    store(header.reset_done, load(header.reset_request));
  }
  if (cycles > load(header.longest_stall)) store(header.longest_stall, cycles);
  if (cycles > load(header.threshold_cycles)) {
    journal::stall& slot = header.ring[load(header.stalls) % journal::stall_ring_size];
    store(slot.start_tsc, before_);
    store(slot.cycles, cycles);
    store(header.stalls, load(header.stalls) + 1);
  }
  before_ = now;
}

void lane_thread::run() {
  const auto header_bytes = ram_.at(journal::header_address(lane_), sizeof(lane_header));
  auto& header = *reinterpret_cast<lane_header*>(header_bytes.data());
  const std::uint64_t pages = load(header.pages), seed = load(header.seed), base = load(header.base);
  const std::uint64_t pace = load(header.pace_cycles), rest_us = load(header.rest_us);
  const auto kind = static_cast<journal::pattern>(load(header.pattern));
  while (wish_.load(std::memory_order_relaxed) == wish::run) {
    if (before_ == 0) {  // the first step since boot or restore
      before_ = __rdtsc();
    } else {
      if (!wait_for_step(pace, rest_us)) return;
      note_time(header, pace, rest_us);  // of the step before; a pause is a stall, as on a vCPU
    }
    if (load(header.step) != next_step_ - 1) store(header.gaps, load(header.gaps) + 1);
    const std::uint64_t page = journal::page_of_step(kind, seed, lane_, pages, next_step_);
    auto* const words = reinterpret_cast<std::uint64_t*>(ram_.at(base + page * page_size, page_size).data());
    ram_.dirty().set(base / page_size + page);
    ram_.dirty().set(journal::header_address(lane_) / page_size);
    ram_.dirty().set(journal::header_address(lane_) / page_size + 1);
    store(words[0], next_step_);
    store(words[journal::last_word], next_step_);
    store(header.step, next_step_);
    if (next_step_ == pages) store(header.filled, 1);
    ++next_step_;
    if (rest_us != 0) rest_until_ = std::chrono::steady_clock::now() + std::chrono::microseconds(rest_us);
  }
}

class thread_machine final : public machine {
 public:
  thread_machine(guest_ram ram, unsigned lanes) : ram_(std::move(ram)) {
    for (unsigned i = 0; i < lanes; ++i) lanes_.push_back(std::make_unique<lane_thread>(ram_, i));
  }

  result<void> boot(const machine_config& config) override;
  result<void> restore(const state_sections& state) override;
  void resume() override {
    for (const auto& each : lanes_) each->resume();
  }
  void pause() override {
    for (const auto& each : lanes_) each->request_pause();
    for (const auto& each : lanes_) each->wait_paused();
  }
  result<state_sections> save() override;
  result<void> collect_dirty() override { return {}; }  // the lanes set the bits themselves
  guest_ram& memory() noexcept override { return ram_; }

 private:
  guest_ram ram_;
  std::vector<std::unique_ptr<lane_thread>> lanes_;
};

result<void> thread_machine::boot(const machine_config& config) {
  journal::options chosen;
  const journal::option_error wrong = journal::parse_options(config.boot_args, chosen);
  if (!wrong.message.empty()) {
    return error{errc::invalid_argument, 0, std::string(wrong.message) + ": " + std::string(wrong.word)};
  }
  if (!journal::fits(chosen, lanes_.size(), std::min(ram_.size(), mmio_gap_start))) {
    return error{errc::invalid_argument, 0, "journal.pages for every vCPU do not fit into RAM"};
  }
  for (std::uint64_t i = 0; i < lanes_.size(); ++i) {
    lane_header header{};
    header.magic = journal::magic;
    header.version = journal::layout_version;
    header.lane = i;
    header.lanes = lanes_.size();
    header.pages = chosen.pages;
    header.pattern = static_cast<std::uint64_t>(chosen.kind);
    header.seed = chosen.seed;
    header.base = journal::lane_base(i, chosen.pages);
    header.pace_cycles = chosen.pace_cycles;
    header.threshold_cycles = chosen.threshold_us * cycles_per_us;
    header.rest_us = chosen.rest_us;
    COPPICE_TRY(ram_.write(journal::header_address(i), std::as_bytes(std::span(&header, 1))));
  }
  std::printf("coppice-vmm: the journal runs on %zu thread(s), not on vCPUs\n", lanes_.size());
  std::fflush(stdout);
  return {};
}

result<state_sections> thread_machine::save() {
  state_sections state;
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    state.set_struct("thread" + std::to_string(i), lanes_[i]->next_step());
  }
  return state;
}

result<void> thread_machine::restore(const state_sections& state) {
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    auto step = state.get_struct<std::uint64_t>("thread" + std::to_string(i));
    if (!step) return std::move(step).error();
    const auto header = ram_.at(journal::header_address(i), sizeof(lane_header));
    if (header.empty()) return error{errc::corrupt, 0, "the memory file holds no journal"};
    const auto& lane = *reinterpret_cast<const lane_header*>(header.data());
    // Below the gap a guest address is an offset in the memory file, as the lanes' dirty bits take it to be.
    const std::uint64_t end = std::min({ram_.size(), mmio_gap_start, journal::lanes_end});
    if (lane.magic != journal::magic || lane.version != journal::layout_version ||
        lane.pattern > static_cast<std::uint64_t>(journal::pattern::zipf) || lane.pages == 0 ||
        lane.rest_us > journal::longest_rest_us || lane.base % page_size != 0 || lane.base > end ||
        lane.pages > (end - lane.base) / page_size) {
      return error{errc::corrupt, 0, "the memory file holds no journal"};
    }
    lanes_[i]->set_next_step(*step);
  }
  return {};
}

}  // namespace

result<std::unique_ptr<machine>> make_thread_machine(guest_ram ram, unsigned lanes) {
  return std::unique_ptr<machine>(std::make_unique<thread_machine>(std::move(ram), lanes));
}

}  // namespace coppice::reference
