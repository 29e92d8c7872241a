#include "bench/fleet_load.hpp"

#include <algorithm>
#include <thread>

namespace coppice::bench {
namespace {

using nlohmann::json;
using clock = std::chrono::steady_clock;

constexpr unsigned askers = 16;  // what a daemon lets be in flight unless told otherwise

double milliseconds_since(clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(clock::now() - begin).count();
}

}  // namespace

fleet_load::fleet_load(const bench_daemon& daemon, const fleet_options& options,
                       const std::vector<std::string>& sandboxes)
    : daemon_(daemon), options_(options), sandboxes_(sandboxes) {}

result<load_results> fleet_load::run() {
  for (const std::string& id : sandboxes_) {
    auto view = daemon_.view(id);
    if (!view && view.error().code == errc::unsupported) break;  // no stalls to be seen
    if (!view) return std::move(view).error();
    views_.push_back(*std::move(view));
  }
  begin_ = clock::now();
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < askers; ++i) threads.emplace_back([this] { ask_until_over(); });
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
  const bool verified = number % options_.verify_each == 0;
  journal_reading before;
  if (!views_.empty()) {
    if (auto read = views_[which].read()) before = *read;
  }
  const auto begin = clock::now();
  auto info = branch_and_delete(sandboxes_[which], "fleet-" + std::to_string(number), verified);
  const std::lock_guard lock(mutex_);
  ++results_.asked;
  if (!info) {
    ++results_.failed;
    if (results_.first_failure.empty()) results_.first_failure = info.error().message();
    return;
  }
  ++results_.done;
  results_.pause_us.push_back((*info)["pause"].value("total_us", 0.0));
  results_.ready_ms.push_back(
      std::chrono::duration<double, std::milli>(
          std::chrono::nanoseconds(info->value("bench_ready_ns", std::int64_t{0})) - begin.time_since_epoch())
          .count());
  if (verified) {
    ++results_.verified;
    results_.bad_pages += info->value("bench_bad_pages", std::uint64_t{0});
  }
  if (views_.empty()) return;
  if (const auto after = views_[which].read(before))
    results_.stall_us.push_back(std::chrono::duration<double, std::micro>(after->longest_stall).count());
}

// The branch's JSON, with what the bench found out beside.
result<json> fleet_load::branch_and_delete(const std::string& sandbox, const std::string& tag, bool verified) {
  auto info =
      daemon_.client().post("/v1/sandboxes/" + path_segment(sandbox) + "/branch", {{"tag", tag}, {"mode", "live"}});
  if (!info) return info;
  (*info)["bench_ready_ns"] = std::chrono::nanoseconds(clock::now().time_since_epoch()).count();
  if (verified) {
    const auto bad = daemon_.verify(tag);
    if (!bad) return bad.error();
    (*info)["bench_bad_pages"] = *bad;
  }
  COPPICE_TRY(daemon_.remove_snapshot(tag));
  return info;
}

}  // namespace coppice::bench
