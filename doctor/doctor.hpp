// coppice doctor: whether this host has what coppiced needs, and what to do where it has not.
#pragma once

#include <ostream>
#include <span>
#include <string>
#include <string_view>

namespace coppice {

// Of the daemon that the host is to serve. See completed() for what is empty.
struct doctor_options {
  std::string config = {};  // its configuration file
  std::string root = {};
  std::string vmm = {};
  std::string listen = {};
  std::string cgroup = {};
  std::string tls_cert = {};       // empty: it speaks no TLS
  std::string tmpfs = "/dev/shm";  // where the store stages vmstates
};

// Fills in what `options` leaves empty: from the configuration file (empty: the packaged one, if it is there), else
// with the daemon's defaults. What is wrong with the file is for doctor::check_configuration() to say.
doctor_options completed(doctor_options options);

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
// behind. REQUIRES: options that are completed().
std::span<const named_check> doctor_checks();

// Runs all checks with the completed() options and prints a line for each, or JSON. Returns the exit code: exit_failed
// if one failed.
int run_doctor(const doctor_options& options, bool json, std::ostream& out);

}  // namespace coppice
