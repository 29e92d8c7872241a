#include "vmm/api_requests.hpp"

#include <nlohmann/json.hpp>

namespace coppice::api_requests {
namespace {

using json = nlohmann::ordered_json;

// Paths are bytes, JSON is UTF-8: what is not UTF-8 is replaced, and the VMM then says that there is no such file.
std::string dump(const json& body) {
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

api_request put(std::string path, const json& body) {
  return {"PUT", std::move(path), dump(body)};
}

api_request set_state(const char* state) {
  return {"PATCH", "/vm", dump({{"state", state}})};
}

api_request snapshot(const char* type, const std::filesystem::path& vmstate_path, std::string_view mem_path) {
  return put("/snapshot/create",
             {{"snapshot_type", type}, {"snapshot_path", vmstate_path.string()}, {"mem_file_path", mem_path}});
}

}  // namespace

api_request describe() {
  return {"GET", "/", {}};
}

api_request version() {
  return {"GET", "/version", {}};
}

api_request machine_config(unsigned vcpus, std::uint64_t mem_mib, bool track_dirty_pages) {
  return put("/machine-config",
             {{"vcpu_count", vcpus}, {"mem_size_mib", mem_mib}, {"track_dirty_pages", track_dirty_pages}});
}

api_request boot_source(const std::filesystem::path& kernel, const std::string& args,
                        const std::filesystem::path& initrd) {
  json body = {{"kernel_image_path", kernel.string()}};
  if (!initrd.empty()) body["initrd_path"] = initrd.string();
  if (!args.empty()) body["boot_args"] = args;
  return put("/boot-source", body);
}

api_request drive(const std::string& id, const std::filesystem::path& path, bool read_only, bool is_root) {
  return put(
      "/drives/" + id,
      {{"drive_id", id}, {"path_on_host", path.string()}, {"is_root_device", is_root}, {"is_read_only", read_only}});
}

api_request network_interface(const std::string& id, const std::string& tap, const std::string& mac) {
  return put("/network-interfaces/" + id, {{"iface_id", id}, {"host_dev_name", tap}, {"guest_mac", mac}});
}

api_request start() {
  return put("/actions", {{"action_type", "InstanceStart"}});
}

api_request pause() {
  return set_state("Paused");
}

api_request resume() {
  return set_state("Resumed");
}

api_request snapshot_full(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path) {
  return snapshot("Full", vmstate_path, mem_path.native());
}

api_request snapshot_diff(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path) {
  return snapshot("Diff", vmstate_path, mem_path.native());
}

api_request snapshot_vmstate_only(const std::filesystem::path& vmstate_path) {
  return snapshot("VmstateOnly", vmstate_path, vmstate_only_placeholder);
}

api_request load_snapshot(const std::filesystem::path& vmstate_path, const std::filesystem::path& mem_path, bool shared,
                          bool enable_diff, bool resume) {
  json backend = {{"backend_type", "File"}, {"backend_path", mem_path.string()}};
  if (shared) backend["shared"] = true;
  json body = {{"snapshot_path", vmstate_path.string()}, {"mem_backend", std::move(backend)}};
  if (enable_diff) body["enable_diff_snapshots"] = true;
  body["resume_vm"] = resume;
  return put("/snapshot/load", body);
}

api_request uffd_wp(const std::filesystem::path& socket) {
  return put("/uffd/wp", {{"socket", socket.string()}});
}

}  // namespace coppice::api_requests
