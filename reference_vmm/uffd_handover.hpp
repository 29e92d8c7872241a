// The userfaultfds that a VMM makes of its guest RAM, and the handshake that gives them away.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace coppice::reference {

struct ram_region;

// A userfaultfd with every region registered for missing pages (the stock Uffd backend). Errors: unsupported, io.
result<unique_fd> create_missing_uffd(std::span<const ram_region> regions);

// A userfaultfd with every region registered for write-protection: faults of the kernel (KVM) are reported too, reads
// don't block. Errors: unsupported, io (EBUSY: another userfaultfd is registered; EINVAL: a file that can't be).
result<unique_fd> create_wp_uffd(std::span<const ram_region> regions);

// The handshake's text: [{"base_host_virt_addr","size","offset","page_size","page_size_kib"}], as Firecracker's.
std::string describe_regions(std::span<const ram_region> regions);

// Connects to the unix socket and sends the text with `uffd` attached. Returns the connection. Errors: not_found, io.
result<unique_fd> send_uffd(const std::filesystem::path& socket, int uffd, std::span<const ram_region> regions);

}  // namespace coppice::reference
