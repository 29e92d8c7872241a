// The requests of a VMM's API that Coppice sends (docs/firecracker.md has the table). Pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "vmm/api_channel.hpp"

namespace coppice::api_requests {

// Sent as mem_file_path where the API demands one that is never to be opened. Below /dev/null nothing can be opened or
// created (ENOTDIR, even for root): a VMM that does not know VmstateOnly fails loudly instead of writing RAM somewhere.
inline constexpr std::string_view vmstate_only_placeholder = "/dev/null/forkd-vmstate-only-mem-ignored";

api_request describe();  // GET /: {"id","state","vmm_version","app_name"}
api_request version();   // GET /version: {"firecracker_version"}

// Before boot.
api_request machine_config(unsigned vcpus, std::uint64_t mem_mib, bool track_dirty_pages);
api_request boot_source(const std::filesystem::path& kernel, const std::string& args,
                        const std::filesystem::path& initrd = {});  // empty: none
api_request drive(const std::string& id, const std::filesystem::path& path, bool read_only, bool is_root);
api_request network_interface(const std::string& id, const std::string& tap, const std::string& mac);
api_request start();

api_request pause();
api_request resume();

// While paused.
api_request snapshot_full(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path);
api_request snapshot_diff(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path);
api_request snapshot_vmstate_only(const std::filesystem::path& vmstate_path);

// Before boot, in place of it. `shared`: the file at `mem_path` becomes the guest's RAM itself (MAP_SHARED).
// `shared` and `enable_diff` are left out of the body when false, so that every Firecracker accepts it.
api_request load_snapshot(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path, bool shared,
                          bool enable_diff, bool resume);

// Asks the VMM to register its RAM for write-protection and to hand the userfaultfd to the listener at `socket`.
api_request uffd_wp(const std::filesystem::path& socket);

}  // namespace coppice::api_requests
