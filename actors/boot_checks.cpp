#include "actors/boot_checks.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "base/file.hpp"
#include "base/tag.hpp"

namespace coppice {
namespace {

constexpr std::uint64_t least_memory = 2 * mib;
constexpr std::uint64_t most_memory = 1024 * gib;

error invalid(std::string context) {
  return {errc::invalid_argument, 0, std::move(context)};
}

result<void> check_kernel(const std::filesystem::path& kernel) {
  if (kernel.empty()) return invalid("no kernel given: name an ELF64 kernel file");
  std::error_code failure;
  if (!std::filesystem::exists(kernel, failure)) return invalid("kernel " + kernel.string() + ": no such file");
  if (!std::filesystem::is_regular_file(kernel, failure))
    return invalid("kernel " + kernel.string() + " is not a file");
  auto file = open_file(kernel, O_RDONLY);
  if (!file) return invalid("kernel " + kernel.string() + " can't be read: " + file.error().message());
  std::array<unsigned char, 20> head{};
  const auto got = ::pread(file->get(), head.data(), head.size(), 0);
  // ELF header: magic at 0, class at 4 (2: 64-bit), data at 5 (1: little-endian), machine at 18 (62: x86-64).
  const bool magic =
      got == static_cast<ssize_t>(head.size()) && head[0] == 0x7f && head[1] == 'E' && head[2] == 'L' && head[3] == 'F';
  if (!magic)
    return invalid("kernel " + kernel.string() + " is no ELF file: an uncompressed ELF64 kernel (vmlinux) is needed");
  if (head[4] != 2 || head[5] != 1 || head[18] != 62 || head[19] != 0)
    return invalid("kernel " + kernel.string() + " is an ELF file, but not for 64-bit x86");
  return {};
}

result<void> check_initrd(const std::filesystem::path& initrd, std::uint64_t memory_bytes) {
  std::error_code failure;
  if (!std::filesystem::exists(initrd, failure)) return invalid("initrd " + initrd.string() + ": no such file");
  if (!std::filesystem::is_regular_file(initrd, failure))
    return invalid("initrd " + initrd.string() + " is not a file");
  if (std::filesystem::file_size(initrd, failure) < memory_bytes) return {};
  return invalid("initrd " + initrd.string() + " is larger than the guest's memory");
}

}  // namespace

result<void> check_boot(const create_snapshot_request& request) {
  COPPICE_TRY(validate_tag(request.tag));
  if (request.memory_bytes % mib != 0 || request.memory_bytes < least_memory || request.memory_bytes > most_memory)
    return invalid("memory of " + std::to_string(request.memory_bytes) +
                   " bytes: a multiple of 1 MiB from 2 MiB to 1 TiB is needed");
  if (request.vcpus < 1 || request.vcpus > 32 || (request.vcpus > 1 && request.vcpus % 2 != 0))
    return invalid(std::to_string(request.vcpus) + " vCPUs: 1, or an even number up to 32 is needed");
  if (request.boot_time < std::chrono::milliseconds(0) || request.boot_time > std::chrono::minutes(10))
    return invalid("boot time: 0 to 600 seconds");
  COPPICE_TRY(check_kernel(request.kernel));
  if (request.initrd) COPPICE_TRY(check_initrd(*request.initrd, request.memory_bytes));
  if (!request.rootfs) return {};
  std::error_code failure;
  if (!std::filesystem::exists(request.rootfs->path, failure))
    return invalid("rootfs " + request.rootfs->path.string() + ": no such file");
  if (!request.rootfs->read_only)
    return error{
        errc::conflict, 0,
        "rootfs " + request.rootfs->path.string() +
            " is writable: drives are attached read-only for now (a writable one's content would not be of the "
            "snapshot's instant)"};
  return {};
}

}  // namespace coppice
