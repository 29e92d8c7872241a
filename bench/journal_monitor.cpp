#include "bench/journal_monitor.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "base/file.hpp"

namespace coppice::bench {
namespace {

constexpr std::chrono::milliseconds interval{1};
constexpr std::chrono::seconds patience{20};

std::uint64_t overwritten_between(const journal_reading& before, const journal_reading& now) {
  std::uint64_t all = 0;
  for (std::size_t lane = 0; lane < std::size(now.stall_count); ++lane) {
    const std::uint64_t recorded = now.stall_count[lane] - before.stall_count[lane];
    if (recorded > journal::stall_ring_size) all += recorded - journal::stall_ring_size;
  }
  return all;
}

}  // namespace

result<journal_view> journal_view::open(pid_t owner, const std::string& sandbox) {
  const std::string wanted = "/memfd:" + sandbox + " (deleted)";
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(owner) + "/fd", failure)) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) != wanted || gone) continue;
    auto memory = open_file(entry.path(), O_RDONLY);
    if (!memory) return std::move(memory).error();
    struct stat status {};
    if (::fstat(memory->get(), &status) != 0) return errno_error("size of the RAM of " + sandbox);
    auto ram = mapping::shared(memory->get(), static_cast<std::size_t>(status.st_size), PROT_READ);
    if (!ram) return std::move(ram).error();
    return journal_view(*std::move(ram));
  }
  return error{errc::unsupported, failure.value(), "the RAM of " + sandbox + " is no memory of the daemon"};
}

journal_monitor::journal_monitor(journal_view view) : view_(std::move(view)), thread_([this] { run(); }) {}

journal_monitor::~journal_monitor() {
  stop_ = true;
  thread_.join();
}

void journal_monitor::run() {
  auto before = view_.read();
  for (auto next = clock::now(); !stop_; next = std::max(next + interval, clock::now())) {
    std::this_thread::sleep_until(next);
    auto now = view_.read(before ? *before : journal_reading{});
    if (!now) continue;
    const std::lock_guard lock(mutex_);
    samples_.push_back({clock::now(), now->steps, now->longest_stall, before ? overwritten_between(*before, *now) : 0});
    before = std::move(now);
  }
}

std::vector<journal_monitor::sample> journal_monitor::samples() const {
  const std::lock_guard lock(mutex_);
  return samples_;
}

void journal_monitor::forget() {
  const std::lock_guard lock(mutex_);
  if (samples_.size() > 1) samples_.erase(samples_.begin(), samples_.end() - 1);
}

double journal_monitor::steps_at(const std::vector<sample>& all, clock::time_point when) {
  const auto after = std::ranges::lower_bound(all, when, {}, &sample::at);
  if (after == all.begin()) return static_cast<double>(all.front().steps);
  if (after == all.end()) return static_cast<double>(all.back().steps);
  const sample& before = *std::prev(after);
  const double share =
      std::chrono::duration<double>(when - before.at) / std::chrono::duration<double>(after->at - before.at);
  return static_cast<double>(before.steps) + share * static_cast<double>(after->steps - before.steps);
}

result<journal_monitor::window> journal_monitor::between(clock::time_point begin, clock::time_point end) const {
  const auto gone_on = [&](const std::vector<sample>& all) {
    const auto after = std::ranges::lower_bound(all, end, {}, &sample::at);
    return after != all.end() && all.back().steps > after->steps;
  };
  auto all = samples();
  for (const auto deadline = clock::now() + patience; !gone_on(all); all = samples()) {
    if (clock::now() > deadline) return error{errc::deadline_exceeded, 0, "the journal guest stands still"};
    std::this_thread::sleep_for(interval);
  }
  window seen;
  seen.steps = steps_at(all, end) - steps_at(all, begin);
  seen.steps_per_s = seen.steps / std::chrono::duration<double>(end - begin).count();
  std::uint64_t steps_at_end = 0;
  for (const sample& each : all) {
    if (each.at <= begin) continue;
    seen.longest_stall_us =
        std::max(seen.longest_stall_us, std::chrono::duration<double, std::micro>(each.longest_stall).count());
    seen.unseen_stalls += static_cast<double>(each.unseen_stalls);
    if (each.at < end) continue;
    if (steps_at_end != 0 && each.steps > steps_at_end) break;
    steps_at_end = each.steps;
  }
  return seen;
}

}  // namespace coppice::bench
