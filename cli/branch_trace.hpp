// One branch as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open: the Trace Event Format, JSON.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace coppice {

// How far the copy was at a moment, as seen by who waits for it.
struct copy_sample {
  std::chrono::microseconds at{};  // since the branch was asked for
  std::uint64_t copied_bytes = 0;
};

// `branch`: a snapshot as the API describes it, with its timeline. Three tracks: the daemon's steps, what they mean for
// the guest, and the copy's progress.
nlohmann::json branch_trace(const nlohmann::json& branch, const std::vector<copy_sample>& samples);

// Errors: io, and unsupported for a branch without a timeline.
result<void> write_branch_trace(const std::string& file, const nlohmann::json& branch,
                                const std::vector<copy_sample>& samples);

}  // namespace coppice
