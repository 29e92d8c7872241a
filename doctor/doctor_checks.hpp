// The checks of coppice doctor. Each looks at one thing; see doctor.hpp.
#pragma once

#include "base/result.hpp"
#include "doctor/doctor.hpp"

namespace coppice::doctor {

// doctor_config.cpp.
finding check_configuration(const doctor_options& options);

// doctor_host.cpp: what the kernel can do.
finding check_kernel(const doctor_options& options);
finding check_kvm(const doctor_options& options);
finding check_userfaultfd(const doctor_options& options);
finding check_userfaultfd_features(const doctor_options& options);
finding check_copy_engine(const doctor_options& options);
finding check_pidfd(const doctor_options& options);
finding check_network(const doctor_options& options);
finding check_free_pages(const doctor_options& options);

// doctor_limits.cpp: how much of it there is for this user.
finding check_open_files(const doctor_options& options);
finding check_threads(const doctor_options& options);
finding check_priority(const doctor_options& options);
finding check_memory(const doctor_options& options);
finding check_memory_limits(const doctor_options& options);

// doctor_places.cpp: what the options name.
finding check_tmpfs(const doctor_options& options);
finding check_root(const doctor_options& options);
finding check_vmm(const doctor_options& options);
finding check_listen(const doctor_options& options);

inline finding ok(std::string found) {
  return {verdict::ok, std::move(found), {}};
}
inline finding warning(std::string found, std::string advice) {
  return {verdict::warning, std::move(found), std::move(advice)};
}
inline finding failed(std::string found, std::string advice) {
  return {verdict::failed, std::move(found), std::move(advice)};
}

}  // namespace coppice::doctor
