#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <cstring>
#include <filesystem>
#include <memory>

#include "base/units.hpp"
#include "client/client.hpp"
#include "doctor/doctor_checks.hpp"
#include "options/existing_folder.hpp"
#include "options/listen_address.hpp"
#include "options/vmm_path.hpp"
#include "vmm/local_vmm_host.hpp"

namespace coppice::doctor {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t much_tmpfs = 64 * mib;  // vmstates of some ten branches at a time
constexpr std::uint64_t much_disk = 2 * gib;    // a few images of usual VMs
constexpr std::uint64_t least_disk = 512 * mib;
constexpr std::chrono::milliseconds answer_deadline{3000};

std::uint64_t free_bytes(const fs::path& folder) {
  struct statvfs system {};
  if (::statvfs(folder.c_str(), &system) != 0) return 0;
  return static_cast<std::uint64_t>(system.f_bavail) * system.f_frsize;
}

// statfs(2)'s magic number; 0 if it can't be told.
std::uint64_t file_system_of(const fs::path& folder) {
  struct statfs system {};
  return ::statfs(folder.c_str(), &system) == 0 ? static_cast<std::uint64_t>(system.f_type) : 0;
}

std::string file_system_name(std::uint64_t magic) {
  switch (magic) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    case NFS_SUPER_MAGIC:
      return "nfs";
    case FUSE_SUPER_MAGIC:
      return "fuse";
    default:
      return "another file system";
  }
}

// A write of a page past the page cache, as the copy makes them, into a file that is gone at once.
result<void> write_directly(const fs::path& folder) {
  auto name = (folder / ".coppice-doctor-XXXXXX").string();
  const unique_fd file(::mkostemp(name.data(), O_CLOEXEC));
  if (!file) return errno_error("make a file in " + folder.string());
  ::unlink(name.c_str());
  if (::fcntl(file.get(), F_SETFL, O_DIRECT) != 0) return errno_error("O_DIRECT in " + folder.string());
  alignas(page_size) static const std::byte page[page_size]{};
  if (::pwrite(file.get(), page, sizeof page, 0) != static_cast<ssize_t>(sizeof page)) {
    return errno_error("write with O_DIRECT in " + folder.string());
  }
  return {};
}

// A folder of this check's own, removed at its end.
class scratch_folder {
 public:
  scratch_folder() {
    auto pattern = (fs::temp_directory_path() / "coppice-doctor-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;  // empty if it could not be made
};

}  // namespace

finding check_tmpfs(const doctor_options& options) {
  const std::string advice =
      "mount a tmpfs there: else each pause waits for the disk, as the VMM ends its vmstate with fsync";
  if (file_system_of(options.tmpfs) != TMPFS_MAGIC) return warning(options.tmpfs + " is no tmpfs", advice);
  if (::access(options.tmpfs.c_str(), W_OK | X_OK) != 0)
    return warning("no right to write to " + options.tmpfs, advice);
  const std::uint64_t free = free_bytes(options.tmpfs);
  const std::string found = options.tmpfs + ", " + format_bytes(free) + " free, for vmstates";
  return free >= much_tmpfs ? ok(found) : warning(found, "make it larger: branches fail where a vmstate does not fit");
}

finding check_root(const doctor_options& options) {
  const fs::path folder = existing_folder(options.root);
  std::error_code failure;
  const bool exists = folder == fs::absolute(options.root, failure).lexically_normal();
  const std::string where = exists ? options.root : options.root + " (to be made in " + folder.string() + ")";
  if (!fs::is_directory(folder, failure)) return failed(folder.string() + " is no folder", "name another with --root");
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return failed(where + ": no right to write", "run as root, or name another folder with --root");
  }
  const auto magic = file_system_of(folder);
  const std::uint64_t free = free_bytes(folder);
  const std::string found = where + ", " + file_system_name(magic) + ", " + format_bytes(free) + " free";
  if (free < least_disk) return failed(found, "free space: an image may need as much as its VM has RAM");
  if (magic == TMPFS_MAGIC)
    return warning(found,
                   "use a disk: on tmpfs snapshots cost memory and are lost at a reboot; if it must be one, mount it "
                   "with huge=always, which speeds copies up");
  const auto direct = write_directly(folder);
  if (!direct.ok())
    return warning(found + "; " + direct.error().message(), "use ext4 or xfs: else copies go by way of the page cache");
  if (free < much_disk) return warning(found, "free space: an image may need as much as its VM has RAM");
  return ok(found + ", O_DIRECT works");
}

// Starts one and asks it, as the daemon does.
finding check_vmm(const doctor_options& options) {
  const std::string binary = options.vmm.empty() ? vmm_beside_this_program() : options.vmm;
  const scratch_folder folder;
  if (folder.path().empty())
    return failed("no temporary folder can be made", "set TMPDIR to a folder that can be written to");
  const auto host = create_vmm_host({binary, folder.path(), {}});
  if (!host.ok()) return failed(host.error().message(), "name a firecracker or coppice-vmm with --vmm");
  const auto& can = (*host)->capabilities();
  const std::string found = can.app_name + " " + can.version + " (" + binary + ")";
  if (can.live()) return ok(found + ": live, full and diff branches");
  return warning(found + ": full and diff branches only; it lacks " + can.missing_for_live(),
                 "live branches need a Firecracker with these additions, or coppice-vmm");
}

finding check_listen(const doctor_options& options) {
  const auto address = parse_listen_address(options.listen);
  if (!address.ok()) return failed(address.error().message(), "give --listen as coppiced has it");
  const std::string advice = "end what holds it, or give coppiced another --listen";
  const bool is_any_port = address->port == 0 && !address->ip.starts_with("unix:");
  if (!is_any_port) {
    auto client = api_client::create(options.listen);
    if (!client.ok()) return failed(client.error().message(), advice);
    client->set_timeout(answer_deadline);
    const auto version = client->get("/version");
    if (version.ok() && version->is_object() && version->value("name", "") == "coppiced") {
      return ok("coppiced " + version->value("version", "") + " answers at " + options.listen);
    }
    if (!version.ok() && version.error().code != errc::unavailable && !options.tls_cert.empty())
      return ok(options.listen + " is held by something that speaks no plain HTTP; coppiced is configured for TLS");
    if (version.ok() || version.error().code != errc::unavailable) {
      return failed(options.listen + " is held by something that is no coppiced, or one that speaks TLS", advice);
    }
  }
  const auto free = check_can_listen(*address);
  return free.ok() ? ok(options.listen + " is free") : failed(free.error().message(), advice);
}

}  // namespace coppice::doctor
