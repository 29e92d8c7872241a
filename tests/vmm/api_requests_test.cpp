#include "vmm/api_requests.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/fd.hpp"

namespace coppice {
namespace {

void expect(const api_request& request, const char* method, const char* path, const char* body) {
  EXPECT_EQ(request.method, method);
  EXPECT_EQ(request.path, path);
  EXPECT_EQ(request.body, body);
}

TEST(api_requests, say_exactly_what_firecracker_documents) {
  namespace api = api_requests;
  expect(api::describe(), "GET", "/", "");
  expect(api::version(), "GET", "/version", "");
  expect(api::pause(), "PATCH", "/vm", R"({"state":"Paused"})");
  expect(api::resume(), "PATCH", "/vm", R"({"state":"Resumed"})");
  expect(api::start(), "PUT", "/actions", R"({"action_type":"InstanceStart"})");
  expect(api::machine_config(2, 256, true), "PUT", "/machine-config",
         R"({"vcpu_count":2,"mem_size_mib":256,"track_dirty_pages":true})");
  expect(api::boot_source("/k", "console=ttyS0 \"x\""), "PUT", "/boot-source",
         R"({"kernel_image_path":"/k","boot_args":"console=ttyS0 \"x\""})");
  expect(api::boot_source("/k", ""), "PUT", "/boot-source", R"({"kernel_image_path":"/k"})");
  expect(api::boot_source("/k", "", "/i"), "PUT", "/boot-source", R"({"kernel_image_path":"/k","initrd_path":"/i"})");
  expect(api::drive("root", "/d", true, true), "PUT", "/drives/root",
         R"({"drive_id":"root","path_on_host":"/d","is_root_device":true,"is_read_only":true})");
  expect(api::network_interface("eth0", "tap0", "06:00:0a:2a:00:02"), "PUT", "/network-interfaces/eth0",
         R"({"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"06:00:0a:2a:00:02"})");
  expect(api::uffd_wp("/s"), "PUT", "/uffd/wp", R"({"socket":"/s"})");
}

TEST(api_requests, snapshots_name_their_type_and_files) {
  namespace api = api_requests;
  expect(api::snapshot_full("/v", "/m"), "PUT", "/snapshot/create",
         R"({"snapshot_type":"Full","snapshot_path":"/v","mem_file_path":"/m"})");
  expect(api::snapshot_diff("/v", "/m"), "PUT", "/snapshot/create",
         R"({"snapshot_type":"Diff","snapshot_path":"/v","mem_file_path":"/m"})");
  expect(
      api::snapshot_vmstate_only("/v"), "PUT", "/snapshot/create",
      R"({"snapshot_type":"VmstateOnly","snapshot_path":"/v","mem_file_path":"/dev/null/forkd-vmstate-only-mem-ignored"})");
}

TEST(api_requests, a_plain_load_has_no_field_that_an_unpatched_firecracker_refuses) {
  expect(api_requests::load_snapshot("/v", "/m", false, false, true), "PUT", "/snapshot/load",
         R"({"snapshot_path":"/v","mem_backend":{"backend_type":"File","backend_path":"/m"},"resume_vm":true})");
  expect(
      api_requests::load_snapshot("/v", "/m", true, true, false), "PUT", "/snapshot/load",
      R"({"snapshot_path":"/v","mem_backend":{"backend_type":"File","backend_path":"/m","shared":true},"enable_diff_snapshots":true,"resume_vm":false})");
}

TEST(api_requests, a_path_that_is_no_utf8_still_gives_json) {
  EXPECT_EQ(api_requests::uffd_wp("/\xff").body, "{\"socket\":\"/\xef\xbf\xbd\"}");
}

TEST(api_requests, the_vmstate_only_placeholder_can_neither_be_opened_nor_created) {
  const std::string path(api_requests::vmstate_only_placeholder);
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_PATH, O_RDWR | O_CREAT, O_WRONLY | O_CREAT | O_TRUNC,
                          O_WRONLY | O_CREAT | O_EXCL, O_RDWR | O_APPEND, O_RDONLY | O_NOFOLLOW}) {
    const unique_fd fd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
    EXPECT_EQ(fd.get(), -1) << flags;
    EXPECT_EQ(errno, ENOTDIR) << flags;
  }
}

}  // namespace
}  // namespace coppice
