#include "store/manifest.hpp"

#include <google/protobuf/util/json_util.h>

#include <array>
#include <cassert>
#include <charconv>
#include <cstdio>

#include "base/image_digest.hpp"
#include "store/manifest.pb.h"

namespace coppice {
namespace {

std::uint64_t count(std::chrono::microseconds duration) {
  return static_cast<std::uint64_t>(duration.count());
}

std::chrono::microseconds microseconds(std::uint64_t value) {
  return std::chrono::microseconds(static_cast<std::int64_t>(value));
}

std::string to_hex(std::uint64_t checksum) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(checksum));
  return text.data();
}

std::optional<std::uint64_t> from_hex(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.size() != 16 || status != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

void put(const pause_breakdown& from, manifest::Pause& to) {
  to.set_pause_us(count(from.pause));
  to.set_snapshot_us(count(from.snapshot));
  to.set_rearm_us(count(from.rearm));
  to.set_resume_us(count(from.resume));
  to.set_total_us(count(from.total));
}

pause_breakdown get(const manifest::Pause& from) {
  return {.pause = microseconds(from.pause_us()),
          .snapshot = microseconds(from.snapshot_us()),
          .rearm = microseconds(from.rearm_us()),
          .resume = microseconds(from.resume_us()),
          .total = microseconds(from.total_us())};
}

void put(const copy_summary& from, manifest::Copy& to) {
  to.set_bulk_pages(from.bulk_pages);
  to.set_captured_pages(from.captured_pages);
  to.set_zero_pages(from.zero_pages);
  to.set_hole_pages(from.hole_pages);
  to.set_faults(from.faults);
  to.set_written_bytes(from.written_bytes);
  to.set_prearm_us(count(from.prearm));
  to.set_copy_us(count(from.copy));
  to.set_longest_fault_us(count(from.longest_fault));
}

copy_summary get(const manifest::Copy& from) {
  return {.bulk_pages = from.bulk_pages(),
          .captured_pages = from.captured_pages(),
          .zero_pages = from.zero_pages(),
          .hole_pages = from.hole_pages(),
          .faults = from.faults(),
          .written_bytes = from.written_bytes(),
          .prearm = microseconds(from.prearm_us()),
          .copy = microseconds(from.copy_us()),
          .longest_fault = microseconds(from.longest_fault_us())};
}

error damaged(std::string why) {
  return {errc::corrupt, 0, "damaged manifest: " + std::move(why)};
}

// The parts of the record that need checking: sizes, mode, checksums.
result<void> get_checked(const manifest::Snapshot& from, snapshot_record& to) {
  if (to.memory_bytes == 0 || to.memory_bytes % page_size != 0) return damaged("memory_bytes is no multiple of 4096");
  if (from.has_mode()) {
    auto mode = parse_branch_mode(from.mode());
    if (!mode) return damaged(mode.error().context);
    to.mode = *mode;
  }
  const auto vmstate_checksum = from_hex(from.vmstate_checksum());
  if (!vmstate_checksum) return damaged("vmstate_checksum is no 16 hex digits");
  to.vmstate_checksum = *vmstate_checksum;
  for (const std::string& text : from.memory_chunk_checksums()) {
    const auto checksum = from_hex(text);
    if (!checksum) return damaged("a memory chunk's checksum is no 16 hex digits");
    to.memory_chunk_checksums.push_back(*checksum);
  }
  if (to.memory_chunk_checksums.size() != (to.memory_bytes + chunk_size - 1) / chunk_size) {
    return damaged("the number of chunk checksums doesn't fit memory_bytes");
  }
  return {};
}

}  // namespace

std::string manifest_to_json(const snapshot_record& record) {
  manifest::Snapshot message;
  message.set_format_version(manifest_format_version);
  message.set_tag(record.tag);
  message.set_created_at_unix(record.created_at_unix);
  message.set_branched_from(record.branched_from);
  message.set_parent_tag(record.parent_tag);
  message.set_backing(record.backing);
  message.set_vmm(record.vmm);
  if (record.mode) message.set_mode(std::string(to_string(*record.mode)));
  message.set_memory_bytes(record.memory_bytes);
  message.set_vcpus(record.vcpus);
  for (const std::string& drive : record.read_only_drives) message.add_read_only_drives(drive);
  message.set_network(record.network);
  if (record.pause) put(*record.pause, *message.mutable_pause());
  if (record.copy) put(*record.copy, *message.mutable_copy());
  message.set_vmstate_bytes(record.vmstate_bytes);
  message.set_vmstate_checksum(to_hex(record.vmstate_checksum));
  for (const std::uint64_t checksum : record.memory_chunk_checksums) {
    message.add_memory_chunk_checksums(to_hex(checksum));
  }
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  assert(status.ok());  // fails only for messages with Any
  (void)status;
  return json;
}

result<snapshot_record> manifest_from_json(std::string_view json, const std::filesystem::path& directory) {
  // Fields that a newer version added must not hide its version number.
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  manifest::Snapshot message;
  const auto status = google::protobuf::util::JsonStringToMessage({json.data(), json.size()}, &message, options);
  if (!status.ok()) return damaged(status.ToString());
  if (message.format_version() > manifest_format_version) {
    return error{errc::unsupported, 0,
                 "format version " + std::to_string(message.format_version()) + " is newer than this coppice reads (" +
                     std::to_string(manifest_format_version) + "): update coppice"};
  }
  if (message.format_version() == 0) return damaged("no format_version");
  if (message.tag() != directory.filename().string()) {
    return damaged("it is of tag '" + message.tag() + "', not of this folder");
  }
  snapshot_record record;
  record.tag = message.tag();
  record.directory = directory;
  record.created_at_unix = message.created_at_unix();
  record.branched_from = message.branched_from();
  record.parent_tag = message.parent_tag();
  record.backing = message.backing();
  record.vmm = message.vmm();
  record.memory_bytes = message.memory_bytes();
  record.vcpus = message.vcpus();
  record.read_only_drives.assign(message.read_only_drives().begin(), message.read_only_drives().end());
  record.network = message.network();
  if (message.has_pause()) record.pause = get(message.pause());
  if (message.has_copy()) record.copy = get(message.copy());
  record.vmstate_bytes = message.vmstate_bytes();
  COPPICE_TRY(get_checked(message, record));
  return record;
}

}  // namespace coppice
