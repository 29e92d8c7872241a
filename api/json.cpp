#include "api/json.hpp"

#include "api/body_reader.hpp"
#include "base/tag.hpp"
#include "base/units.hpp"

namespace coppice {
namespace {

using nlohmann::json;

constexpr std::uint64_t least_memory = 2 * mib;
constexpr std::uint64_t most_memory = 1024 * gib;
constexpr std::uint64_t most_vcpus = 32;
constexpr std::uint64_t most_sandboxes = 1000;
constexpr std::uint64_t most_boot_time_ms = 60'000;

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

// Whole ones, as forkd's clients read them: a part of one counts as one.
std::int64_t in_milliseconds(std::chrono::microseconds time) {
  return std::chrono::ceil<std::chrono::milliseconds>(time).count();
}

json to_json(const pause_breakdown& pause) {
  return {{"pause_us", pause.pause.count()},
          {"snapshot_us", pause.snapshot.count()},
          {"rearm_us", pause.rearm.count()},
          {"resume_us", pause.resume.count()},
          {"total_us", pause.total.count()}};
}

json to_json(const copy_summary& copy) {
  return {{"bulk_pages", copy.bulk_pages},
          {"captured_pages", copy.captured_pages},
          {"zero_pages", copy.zero_pages},
          {"hole_pages", copy.hole_pages},
          {"bulk_bytes", copy.bulk_pages * page_size},
          {"captured_bytes", copy.captured_pages * page_size},
          {"zero_bytes", copy.zero_pages * page_size},
          {"hole_bytes", copy.hole_pages * page_size},
          {"written_bytes", copy.written_bytes},
          {"faults", copy.faults},
          {"prearm_us", copy.prearm.count()},
          {"copy_us", copy.copy.count()},
          {"longest_fault_us", copy.longest_fault.count()}};
}

std::string hex64(std::uint64_t value) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = digits[(value >> (60 - 4 * i)) & 15];
  return text;
}

// A NUL would end what the kernel, or a VMM, takes a text for.
bool has_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

void check_path(body_reader& reader, const char* name, const std::string& path) {
  if (path.starts_with('/') && !has_nul(path)) return;
  reader.fail("field \"" + std::string(name) + "\" must be an absolute path without a NUL");
}

std::optional<drive_request> read_rootfs(body_reader& reader) {
  const auto path = reader.text("rootfs");
  auto read_only = reader.flag("rootfs_read_only");
  const auto writable = reader.flag("rw");  // forkd's way to say it
  if (read_only && writable) reader.fail("give \"rootfs_read_only\" or forkd's \"rw\", not both");
  if (writable) read_only = !*writable;
  if (!path) {
    if (read_only)
      reader.fail(std::string("field \"") + (writable ? "rw" : "rootfs_read_only") + "\" needs \"rootfs\"");
    return std::nullopt;
  }
  check_path(reader, "rootfs", *path);
  return drive_request{*path, read_only.value_or(true)};
}

void read_memory(body_reader& reader, std::uint64_t& memory_bytes) {
  const auto bytes = reader.number("memory_bytes", least_memory, most_memory);
  const auto mebibytes = reader.number("memory_mib", least_memory / mib, most_memory / mib);
  if (bytes && mebibytes) return reader.fail("give \"memory_bytes\" or \"memory_mib\", not both");
  if (bytes) memory_bytes = *bytes;
  if (mebibytes) memory_bytes = *mebibytes * mib;
  if (memory_bytes % mib != 0) reader.fail("field \"memory_bytes\" must be a multiple of 1048576");
}

std::optional<std::chrono::milliseconds> read_boot_time(body_reader& reader) {
  const auto milliseconds = reader.number("boot_time_ms", 0, most_boot_time_ms);
  const auto seconds = reader.number("boot_wait_secs", 0, most_boot_time_ms / 1000);  // forkd's way to say it
  if (milliseconds && seconds) reader.fail("give \"boot_time_ms\" or forkd's \"boot_wait_secs\", not both");
  if (milliseconds) return std::chrono::milliseconds(*milliseconds);
  if (seconds) return std::chrono::seconds(*seconds);
  return std::nullopt;
}

// Each VM has a tap of its own in a namespace of its own, so the name in forkd's "tap" says only that there is to be
// one.
bool read_network(body_reader& reader) {
  const auto network = reader.flag("network");
  const bool tap = reader.text("tap").has_value();
  if (tap && network == false) reader.fail("field \"tap\" asks for a network, and \"network\" is false");
  return tap || network.value_or(false);
}

void check_tag(body_reader& reader, const std::string& tag) {
  if (auto legal = validate_tag(tag); !legal.ok()) reader.fail(std::move(legal).error());
}

}  // namespace

json to_json(const snapshot_info& snapshot) {
  json value = {{"tag", snapshot.tag},
                {"dir", snapshot.dir.string()},
                {"created_at_unix", snapshot.created_at_unix},
                {"branched_from", or_null(snapshot.branched_from)},
                {"pause_ms", nullptr},
                {"status", to_string(snapshot.status)},
                {"bootable", snapshot.bootable},
                {"parent_tag", or_null(snapshot.parent_tag)},
                {"mode", nullptr},
                {"vmm", snapshot.vmm},
                {"memory_bytes", snapshot.memory_bytes},
                {"vcpus", snapshot.vcpus},
                {"network", snapshot.network},
                {"memory_checksum", nullptr},
                {"progress", {{"copied_pages", snapshot.copied_pages}, {"total_pages", snapshot.total_pages}}}};
  if (snapshot.pause) {
    value["pause_ms"] = in_milliseconds(snapshot.pause->total);
    value["pause"] = to_json(*snapshot.pause);
  }
  if (snapshot.copy) value["copy"] = to_json(*snapshot.copy);
  for (const auto& each : snapshot.timeline) {
    value["timeline"].push_back(
        {{"step", each.step}, {"began_us", each.began.count()}, {"took_us", each.took.count()}});
  }
  if (snapshot.mode) value["mode"] = to_string(*snapshot.mode);
  if (snapshot.memory_checksum) value["memory_checksum"] = hex64(*snapshot.memory_checksum);
  if (!snapshot.note.empty()) value["note"] = snapshot.note;
  if (!snapshot.failure.empty()) value["error"] = snapshot.failure;
  if (snapshot.failure_code) value["code"] = to_string(*snapshot.failure_code);
  return value;
}

json details_to_json(const snapshot_info& snapshot) {
  json value = to_json(snapshot);
  value["memory_logical_bytes"] = snapshot.memory_bytes;
  value["chain_depth"] = 0;  // the image is whole: no other one is needed to restore it
  value["parent_content_hash"] = nullptr;
  value["ancestors"] = snapshot.ancestors;
  value["dependents"] = snapshot.dependents;
  return value;
}

json to_json(const sandbox_info& sandbox) {
  return {{"id", sandbox.id},
          {"snapshot_tag", sandbox.snapshot_tag},
          {"created_at_unix", sandbox.created_at_unix},
          {"pid", sandbox.pid},
          {"has_branched", sandbox.has_branched},
          {"branch_count", sandbox.branch_count},
          {"last_pause_us", sandbox.last_pause ? json(sandbox.last_pause->count()) : json(nullptr)},
          {"netns", or_null(sandbox.netns)},
          {"guest_addr", or_null(sandbox.guest_addr)},
          {"memory_limit_mib", or_null(sandbox.memory_limit_mib)},
          {"state", to_string(sandbox.state)},
          {"backing", sandbox.backing},
          {"memory_bytes", sandbox.memory_bytes},
          {"vcpus", sandbox.vcpus}};
}

json to_json(const verify_report& report) {
  return {{"tag", report.tag},
          {"ok", report.ok},
          {"chunks", report.chunks},
          {"bad_chunks", report.bad_chunks},
          {"vmstate_ok", report.vmstate_ok},
          {"is_journal", report.is_journal},
          {"journal_pages", report.journal_pages},
          {"journal_steps", report.journal_steps},
          {"future_pages", report.future_pages},
          {"lost_pages", report.lost_pages},
          {"torn_pages", report.torn_pages},
          {"gaps", report.gaps}};
}

json to_json(const journal_status& status) {
  return {{"steps", status.steps}, {"gaps", status.gaps}, {"longest_stall_ns", status.longest_stall.count()}};
}

json to_json(const vmm_capabilities& vmm) {
  json missing = json::array();
  if (!vmm.vmstate_only) missing.push_back("snapshot type VmstateOnly");
  if (!vmm.shared_memory) missing.push_back("mem_backend.shared");
  if (!vmm.uffd_wp) missing.push_back("PUT /uffd/wp");
  return {
      {"name", vmm.app_name}, {"version", vmm.version}, {"live", vmm.live()}, {"missing_for_live", std::move(missing)}};
}

json to_json(const error& failure) {
  constexpr std::size_t longest_message = 2000;  // it may quote what was sent
  return {{"error", failure.message().substr(0, longest_message)}, {"code", to_string(failure.code)}};
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<create_snapshot_request> parse_create_snapshot(std::string_view body) {
  body_reader reader(body, {"tag", "kernel", "initrd", "memory_bytes", "memory_mib", "vcpus", "boot_args", "rootfs",
                            "rootfs_read_only", "rw", "network", "tap", "boot_time_ms", "boot_wait_secs"});
  create_snapshot_request request;
  request.tag = reader.text("tag").value_or("");
  if (!reader.has("tag")) reader.fail("field \"tag\" is missing");
  check_tag(reader, request.tag);
  const std::string kernel = reader.required_text("kernel");
  check_path(reader, "kernel", kernel);
  request.kernel = kernel;
  if (const auto initrd = reader.text("initrd")) {
    check_path(reader, "initrd", *initrd);
    request.initrd = *initrd;
  }
  read_memory(reader, request.memory_bytes);
  request.vcpus = static_cast<unsigned>(reader.number("vcpus", 1, most_vcpus).value_or(request.vcpus));
  request.boot_args = reader.text("boot_args").value_or("");
  if (has_nul(request.boot_args)) reader.fail("field \"boot_args\" must not hold a NUL");
  request.rootfs = read_rootfs(reader);
  request.network = read_network(reader);
  request.boot_time = read_boot_time(reader).value_or(request.boot_time);
  if (reader.failure()) return *reader.failure();
  return request;
}

result<create_sandboxes_request> parse_create_sandboxes(std::string_view body) {
  body_reader reader(body,
                     {"snapshot_tag", "n", "per_child_netns", "memory_limit_mib", "prewarm", "live_fork", "hugepages"});
  create_sandboxes_request request;
  request.snapshot_tag = reader.text("snapshot_tag").value_or("");
  if (!reader.has("snapshot_tag")) reader.fail("field \"snapshot_tag\" is missing");
  check_tag(reader, request.snapshot_tag);
  request.n = static_cast<unsigned>(reader.number("n", 1, most_sandboxes).value_or(request.n));
  request.network_namespaces = reader.flag("per_child_netns").value_or(false);
  // Hints of forkd's clients that change nothing here: docs/decisions/forkd-api.md.
  for (const char* name : {"live_fork", "prewarm", "hugepages"}) reader.flag(name);
  request.memory_limit_mib = reader.number("memory_limit_mib", 1, most_memory / mib).value_or(0);
  if (reader.failure()) return *reader.failure();
  return request;
}

result<branch_request> parse_branch(std::string_view body, branch_mode otherwise) {
  body_reader reader(body, {"tag", "mode", "diff", "wait", "measure_diff", "parent_tag"});
  branch_request request;
  request.mode = otherwise;
  request.tag = reader.text("tag");
  if (request.tag) check_tag(reader, *request.tag);
  request.parent_tag = reader.text("parent_tag");
  if (request.parent_tag) check_tag(reader, *request.parent_tag);
  if (reader.has("mode") && reader.has("diff")) reader.fail("give \"mode\" or the older \"diff\", not both");
  if (const auto mode = reader.text("mode")) {
    auto parsed = parse_branch_mode(*mode);
    if (parsed.ok()) {
      request.mode = *parsed;
    } else {
      reader.fail(std::move(parsed).error());
    }
  }
  if (const auto diff = reader.flag("diff")) request.mode = *diff ? branch_mode::diff : branch_mode::full;
  request.wait = reader.flag("wait").value_or(true);
  if (reader.flag("measure_diff").value_or(false))
    reader.fail(
        "field \"measure_diff\": true would write a second snapshot inside the pause; branch with \"mode\": \"diff\" "
        "to see what one takes");
  if (reader.failure()) return *reader.failure();
  return request;
}

}  // namespace coppice
