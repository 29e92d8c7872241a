#include "bench/fleet_load.hpp"

#include <algorithm>
#include <thread>

namespace coppice::bench {
namespace {

using clock = std::chrono::steady_clock;

double milliseconds_since(clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(clock::now() - begin).count();
}

}  // namespace

fleet_load::fleet_load(const bench_daemon& daemon, fleet_options options, const std::vector<std::string>& sandboxes,
                       std::string name)
    : daemon_(daemon), options_(std::move(options)), sandboxes_(sandboxes), name_(std::move(name)) {}

result<load_results> fleet_load::run() {
  auto views = daemon_.views(sandboxes_);
  if (!views) return std::move(views).error();
  views_ = *std::move(views);
  begin_ = clock::now();
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options_.askers; ++i) threads.emplace_back([this] { ask_until_over(); });
  for (std::thread& each : threads) each.join();
  return results_;
}

void fleet_load::ask_until_over() {
  for (;;) {
    const unsigned number = next_++;
    const std::chrono::duration<double> due(number / options_.rate);
    if (due >= options_.duration) return;
    const auto when = begin_ + std::chrono::duration_cast<clock::duration>(due);
    std::this_thread::sleep_until(when);
    const double late = milliseconds_since(when);
    branch(number);
    const std::lock_guard lock(mutex_);
    results_.late_ms.push_back(late);
  }
}

void fleet_load::branch(unsigned number) {
  const std::size_t which = number % sandboxes_.size();
  const std::string tag = name_ + "-" + std::to_string(number);
  journal_reading before;
  if (!views_.empty()) {
    if (auto read = views_[which].read()) before = *read;
  }
  const auto begin = clock::now();
  const auto info = daemon_.client().post("/v1/sandboxes/" + path_segment(sandboxes_[which]) + "/branch",
                                          {{"tag", tag}, {"mode", "live"}});
  const double ready_ms = milliseconds_since(begin);
  if (!info) return note_failure(info.error());
  std::optional<double> stall_us;
  if (!views_.empty()) {
    if (const auto after = views_[which].read(before))
      stall_us = std::chrono::duration<double, std::micro>(after->longest_stall).count();
  }
  const auto bad = verify_and_delete(number, tag);
  if (!bad) return note_failure(bad.error());
  const std::lock_guard lock(mutex_);
  ++results_.asked;
  ++results_.done;
  results_.pause_us.push_back((*info)["pause"].value("total_us", 0.0));
  results_.ready_ms.push_back(ready_ms);
  if (stall_us) results_.stall_us.push_back(*stall_us);
  if (!*bad) return;
  ++results_.verified;
  results_.bad_pages += **bad;
}

void fleet_load::note_failure(const error& why) {
  const std::lock_guard lock(mutex_);
  ++results_.asked;
  ++results_.failed;
  if (results_.first_failure.empty()) results_.first_failure = why.message();
}

result<std::optional<std::uint64_t>> fleet_load::verify_and_delete(unsigned number, const std::string& tag) {
  std::optional<std::uint64_t> bad_pages;
  if (number % options_.verify_each == 0) {
    const auto bad = daemon_.verify(tag);
    if (!bad) return bad.error();
    bad_pages = *bad;
  }
  COPPICE_TRY(daemon_.remove_snapshot(tag));
  return bad_pages;
}

}  // namespace coppice::bench
