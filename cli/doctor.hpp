// coppice doctor: whether this host has what coppiced needs, and what to do where it has not.
#pragma once

#include <ostream>
#include <span>
#include <string>
#include <string_view>

namespace coppice {

struct doctor_options {
  std::string root = "/var/lib/coppice";
  std::string vmm = {};  // empty: the daemon's default
  std::string listen = "127.0.0.1:8889";
  std::string tmpfs = "/dev/shm";  // where the store stages vmstates
};

enum class verdict { ok, warning, failed };
std::string_view to_string(verdict value) noexcept;

// What one check found.
struct finding {
  verdict status = verdict::ok;
  std::string found;
  std::string advice;  // what to do; empty if there is nothing to do
};

struct named_check {
  const char* name;
  finding (*run)(const doctor_options& options);
};

// All checks, in the order in which they are shown. Each may block for a moment (a VMM is started) and leaves nothing
// behind.
std::span<const named_check> doctor_checks();

// Runs all checks and prints a line for each, or JSON. Returns the exit code: exit_failed if one failed.
int run_doctor(const doctor_options& options, bool json, std::ostream& out);

}  // namespace coppice
