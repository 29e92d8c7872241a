#include "reference_vmm/state_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file.hpp"

namespace coppice::reference {
namespace {

constexpr std::uint64_t state_magic = 0x455441545350'4f43;  // "COPSTATE", near enough
constexpr std::uint32_t state_version = 1;

struct file_header {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t sections;
  std::uint64_t length;  // of what follows
  std::uint64_t checksum;
};

struct section_header {
  char name[32];
  std::uint64_t length;
};

void append(std::vector<std::byte>& to, const void* data, std::size_t size) {
  const auto* const from = static_cast<const std::byte*>(data);
  to.insert(to.end(), from, from + size);
}

error damaged(const std::string& why) {
  return error{errc::corrupt, 0, "damaged vmstate: " + why};
}

result<state_sections> parse_sections(std::span<const std::byte> body, std::uint32_t count) {
  state_sections state;
  for (std::uint32_t i = 0; i < count; ++i) {
    section_header header{};
    if (body.size() < sizeof header) return damaged("a section is cut short");
    std::memcpy(&header, body.data(), sizeof header);
    body = body.subspan(sizeof header);
    if (body.size() < header.length) return damaged("a section is cut short");
    header.name[sizeof header.name - 1] = '\0';
    state.set(header.name, {body.begin(), body.begin() + static_cast<std::ptrdiff_t>(header.length)});
    body = body.subspan(header.length);
  }
  return state;
}

}  // namespace

result<void> write_state_file(const std::filesystem::path& path, const state_sections& state) {
  std::vector<std::byte> content(sizeof(file_header));
  for (const auto& [name, bytes] : state.all()) {
    section_header header{};
    name.copy(header.name, sizeof header.name - 1);
    header.length = bytes.size();
    append(content, &header, sizeof header);
    append(content, bytes.data(), bytes.size());
  }
  const std::size_t length = content.size() - sizeof(file_header);
  const file_header header{state_magic, state_version, static_cast<std::uint32_t>(state.all().size()), length,
                           XXH3_64bits(content.data() + sizeof(file_header), length)};
  std::memcpy(content.data(), &header, sizeof header);
  auto file = open_file(path, O_CREAT | O_TRUNC | O_WRONLY);
  if (!file) return std::move(file).error();
  COPPICE_TRY(write_all_at(file->get(), content, 0));
  if (::fsync(file->get()) != 0) return errno_error("fsync " + path.string());
  return {};
}

result<state_sections> read_state_file(const std::filesystem::path& path) {
  auto file = open_file(path, O_RDONLY);
  if (!file) return std::move(file).error();
  struct stat info {};
  if (::fstat(file->get(), &info) != 0) return errno_error("fstat " + path.string());
  file_header header{};
  if (static_cast<std::size_t>(info.st_size) < sizeof header) return damaged("too short for a header");
  COPPICE_TRY(read_all_at(file->get(), std::as_writable_bytes(std::span(&header, 1)), 0));
  if (header.magic != state_magic) return damaged("not a vmstate of coppice-vmm");
  if (header.version != state_version) return damaged("format version " + std::to_string(header.version));
  if (header.length != static_cast<std::uint64_t>(info.st_size) - sizeof header) return damaged("its length is wrong");
  std::vector<std::byte> body(header.length);
  COPPICE_TRY(read_all_at(file->get(), body, sizeof header));
  if (XXH3_64bits(body.data(), body.size()) != header.checksum) return damaged("checksum validation failed");
  return parse_sections(body, header.sections);
}

}  // namespace coppice::reference
