// Whether the machine gives the memory that it frees back to a host: it is a VM whose balloon reports free pages.
#pragma once

#include <filesystem>
#include <optional>

namespace coppice {

// Free blocks of 2^n pages or more are reported to the host, which takes them away: this n. None if nothing is
// reported, as on bare metal. While much is reported, a CPU of the machine may stand still for 8 to 18 ms at a time
// (seen here). Sources: Documentation/mm/free_page_reporting.rst; Virtual I/O Device 1.2, 5.5.3
// (VIRTIO_BALLOON_F_PAGE_REPORTING).
std::optional<unsigned> free_page_reporting_order(const std::filesystem::path& sysfs = "/sys");

}  // namespace coppice
