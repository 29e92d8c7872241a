#include "api/json.hpp"

#include <gmock/gmock.h>

#include "base/http_status.hpp"

namespace coppice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

template <class T>
std::string failure_of(const result<T>& outcome) {
  if (outcome.ok()) return "<no failure>";
  EXPECT_EQ(outcome.error().code, errc::invalid_argument);
  return outcome.error().message();
}

TEST(json, a_snapshot_has_forkds_fields_and_ours) {
  snapshot_info info;
  info.tag = "b1";
  info.dir = "/root/snapshots/b1";
  info.created_at_unix = 1700000000;
  info.branched_from = "sb-1";
  info.bootable = true;
  info.mode = branch_mode::live;
  info.pause = pause_breakdown{};
  info.pause->rearm = std::chrono::microseconds(90);
  info.pause->total = std::chrono::microseconds(1250);
  info.copy = copy_summary{.bulk_pages = 3, .captured_pages = 2};
  info.memory_checksum = 0x0123456789abcdefULL;
  const json value = to_json(info);
  EXPECT_EQ(value["tag"], "b1");
  EXPECT_EQ(value["dir"], "/root/snapshots/b1");
  EXPECT_EQ(value["created_at_unix"], 1700000000);
  EXPECT_EQ(value["branched_from"], "sb-1");
  EXPECT_EQ(value["pause_ms"], 2) << "whole milliseconds, and never fewer than it was";
  EXPECT_TRUE(value["pause_ms"].is_number_integer());
  EXPECT_EQ(value["status"], "ready");
  EXPECT_EQ(value["bootable"], true);
  EXPECT_EQ(value["mode"], "live");
  EXPECT_EQ(value["pause"]["rearm_us"], 90);
  EXPECT_EQ(value["copy"]["bulk_bytes"], 3 * 4096);
  EXPECT_EQ(value["copy"]["captured_pages"], 2);
  EXPECT_EQ(value["memory_checksum"], "0123456789abcdef");
  EXPECT_FALSE(value.contains("error"));
}

TEST(json, a_snapshot_that_is_no_branch_says_null) {
  snapshot_info info;
  info.status = snapshot_status::failed;
  info.failure = "disk full";
  info.failure_code = errc::no_space;
  const json value = to_json(info);
  EXPECT_TRUE(value["branched_from"].is_null());
  EXPECT_TRUE(value["pause_ms"].is_null());
  EXPECT_EQ(value["status"], "failed");
  EXPECT_EQ(value["code"], "no_space");
  EXPECT_EQ(value["error"], "disk full");
}

TEST(json, a_sandbox_has_forkds_fields) {
  sandbox_info info;
  info.id = "sb-1";
  info.branch_count = 2;
  const json value = to_json(info);
  for (const char* name : {"id", "snapshot_tag", "created_at_unix", "pid", "has_branched", "branch_count", "netns",
                           "guest_addr", "memory_limit_mib"}) {
    EXPECT_TRUE(value.contains(name)) << name;
  }
  EXPECT_TRUE(value["netns"].is_null());
  EXPECT_EQ(value["branch_count"], 2);
  EXPECT_EQ(value["state"], "running");
}

TEST(json, the_vmm_names_what_live_branching_lacks) {
  const json value = to_json(vmm_capabilities{"Firecracker", "1.12.1", true, false, false});
  EXPECT_EQ(value["live"], false);
  EXPECT_EQ(value["missing_for_live"], json({"mem_backend.shared", "PUT /uffd/wp"}));
}

TEST(json, text_that_is_not_utf8_is_replaced) {
  EXPECT_THAT(dump({{"error", "\xff"}}), HasSubstr("\xef\xbf\xbd"));
}

TEST(json, a_snapshot_request_is_read_whole) {
  const auto request = parse_create_snapshot(
      R"({"tag":"base","kernel":"/k","memory_mib":64,"vcpus":2,"boot_args":"a b","rootfs":"/r","rootfs_read_only":false})");
  ASSERT_TRUE(request.ok()) << request.error().message();
  EXPECT_EQ(request->tag, "base");
  EXPECT_EQ(request->memory_bytes, 64 * mib);
  EXPECT_EQ(request->vcpus, 2u);
  EXPECT_EQ(request->boot_args, "a b");
  EXPECT_FALSE(request->initrd);
  ASSERT_TRUE(request->rootfs);
  EXPECT_FALSE(request->rootfs->read_only);
}

TEST(json, a_base_can_be_asked_for_as_forkds_clients_do) {
  const auto request = parse_create_snapshot(
      R"({"tag":"base","kernel":"/k","rootfs":"/r","rw":false,"tap":"forkd-tap0","boot_wait_secs":10})");
  ASSERT_TRUE(request.ok()) << request.error().message();
  EXPECT_TRUE(request->rootfs->read_only);
  EXPECT_TRUE(request->network);
  EXPECT_EQ(request->boot_time, std::chrono::seconds(10));
  EXPECT_FALSE(parse_create_snapshot(R"({"tag":"a","kernel":"/k","rootfs":"/r","rw":true})")->rootfs->read_only);
  EXPECT_FALSE(
      parse_create_snapshot(R"({"tag":"a","kernel":"/k","rw":null,"tap":null,"boot_wait_secs":null})")->network);
  for (const char* wrong :
       {R"("rw":false)", R"("rootfs":"/r","rw":true,"rootfs_read_only":true)", R"("tap":"t","network":false)",
        R"("boot_wait_secs":1,"boot_time_ms":1000)", R"("boot_wait_secs":61)", R"("tap":true)"}) {
    EXPECT_FALSE(parse_create_snapshot(std::string(R"({"tag":"a","kernel":"/k",)") + wrong + "}").ok()) << wrong;
  }
}

TEST(json, a_branch_may_name_what_its_sandbox_comes_from) {
  EXPECT_EQ(parse_branch(R"({"parent_tag":"base","mode":"diff"})")->parent_tag, "base");
  EXPECT_FALSE(parse_branch(R"({"parent_tag":null})")->parent_tag);
  EXPECT_FALSE(parse_branch(R"({"parent_tag":"../x"})").ok());
}

TEST(json, an_initrd_is_an_absolute_path) {
  const auto request = parse_create_snapshot(R"({"tag":"base","kernel":"/k","initrd":"/i"})");
  ASSERT_TRUE(request.ok()) << request.error().message();
  EXPECT_EQ(request->initrd, "/i");
  for (const char* wrong : {R"("i")", R"("")", R"("/i\u0000")", "7"}) {
    const auto refused = parse_create_snapshot(std::string(R"({"tag":"a","kernel":"/k","initrd":)") + wrong + "}");
    ASSERT_FALSE(refused.ok()) << wrong;
    EXPECT_THAT(refused.error().message(), HasSubstr("initrd"));
  }
}

TEST(json, a_rootfs_is_read_only_unless_told_otherwise) {
  const auto request = parse_create_snapshot(R"({"tag":"base","kernel":"/k","rootfs":"/r"})");
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(request->rootfs->read_only);
}

TEST(json, bad_snapshot_requests_name_the_field) {
  const auto failure = [](std::string_view body) { return failure_of(parse_create_snapshot(body)); };
  EXPECT_THAT(failure(R"({"kernel":"/k"})"), HasSubstr("\"tag\" is missing"));
  EXPECT_THAT(failure(R"({"tag":"a"})"), HasSubstr("\"kernel\" is missing"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"k"})"), HasSubstr("absolute"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k\u0000.elf"})"), HasSubstr("NUL"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","rootfs":"/r\u0000"})"), HasSubstr("NUL"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","boot_args":"a\u0000b"})"), HasSubstr("NUL"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":7})"), AllOf(HasSubstr("\"kernel\""), HasSubstr("string")));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","vcpus":0})"), AllOf(HasSubstr("\"vcpus\""), HasSubstr("1 to 32")));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","vcpus":1.5})"), HasSubstr("\"vcpus\" must be an integer"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","vcpus":-1})"), HasSubstr("it is -1"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","memory_mib":2,"memory_bytes":2097152})"), HasSubstr("not both"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","memory_bytes":2101248})"), HasSubstr("multiple of 1048576"));
  EXPECT_THAT(failure(R"({"tag":"a","kernel":"/k","rootfs_read_only":true})"), HasSubstr("needs \"rootfs\""));
  EXPECT_THAT(failure(R"({"tag":"a","kernal":"/k"})"),
              AllOf(HasSubstr("\"kernal\""), HasSubstr("known are tag, kernel")));
  for (const char* tag : {"../x", "", "a/b", ".x"}) {
    EXPECT_THAT(failure(json({{"tag", tag}, {"kernel", "/k"}}).dump()), HasSubstr("bad tag")) << tag;
  }
  EXPECT_THAT(failure(json({{"tag", std::string(65, 'a')}, {"kernel", "/k"}}).dump()), HasSubstr("bad tag"));
}

TEST(json, bad_json_is_told_with_its_place) {
  EXPECT_THAT(failure_of(parse_branch("{\"tag\":\n x}")), AllOf(HasSubstr("line 2, column 2"), HasSubstr("no JSON")));
  EXPECT_THAT(failure_of(parse_branch("[1]")), HasSubstr("must be a JSON object"));
  EXPECT_THAT(failure_of(parse_branch(std::string(1 << 20, '['))), HasSubstr("no JSON"));
  EXPECT_THAT(failure_of(parse_branch("{\"tag\":1e999}")), HasSubstr("no JSON"));
}

TEST(json, forkds_hints_are_taken_whatever_they_say) {
  for (const json& value : {json(true), json(false), json(nullptr)}) {
    const auto request = parse_create_sandboxes(json({{"snapshot_tag", "base"},
                                                      {"n", 3},
                                                      {"per_child_netns", false},
                                                      {"prewarm", value},
                                                      {"hugepages", value},
                                                      {"live_fork", value},
                                                      {"memory_limit_mib", nullptr}})
                                                    .dump());
    ASSERT_TRUE(request.ok()) << request.error().message();
    EXPECT_EQ(request->n, 3u);
  }
  EXPECT_THAT(failure_of(parse_create_sandboxes(R"({"snapshot_tag":"base","prewarm":"yes"})")), HasSubstr("prewarm"));
}

TEST(json, a_memory_limit_is_a_whole_number_of_mib) {
  EXPECT_EQ(parse_create_sandboxes(R"({"snapshot_tag":"a","memory_limit_mib":64})")->memory_limit_mib, 64U);
  EXPECT_EQ(parse_create_sandboxes(R"({"snapshot_tag":"a"})")->memory_limit_mib, 0U);
  EXPECT_THAT(failure_of(parse_create_sandboxes(R"({"snapshot_tag":"a","memory_limit_mib":0})")),
              HasSubstr("memory_limit_mib"));
}

TEST(json, an_integer_may_be_written_with_a_fraction_of_nothing) {
  EXPECT_EQ(parse_create_sandboxes(R"({"snapshot_tag":"b","n":2.0})")->n, 2u) << "it is one by JSON Schema, too";
  EXPECT_EQ(parse_create_sandboxes(R"({"snapshot_tag":"b","n":1e3})")->n, 1000u);
}

TEST(json, n_is_from_1_to_1000) {
  for (const char* n : {"0", "1001", "-1", "99999999999999999999", "1.5", "-1.0", "1e300", "\"1\""}) {
    const auto body = std::string(R"({"snapshot_tag":"base","n":)") + n + "}";
    EXPECT_THAT(failure_of(parse_create_sandboxes(body)), HasSubstr("\"n\"")) << n;
  }
  EXPECT_EQ(parse_create_sandboxes(R"({"snapshot_tag":"base","n":1000})")->n, 1000u);
}

TEST(json, a_branch_is_live_and_waits_by_default) {
  for (const char* body : {"", "{}", " \n", R"({"tag":null})"}) {
    const auto request = parse_branch(body);
    ASSERT_TRUE(request.ok()) << body;
    EXPECT_EQ(request->mode, branch_mode::live);
    EXPECT_TRUE(request->wait);
    EXPECT_FALSE(request->tag);
  }
}

TEST(json, a_branchs_mode_comes_from_mode_or_from_the_older_diff) {
  EXPECT_EQ(parse_branch(R"({"mode":"full"})")->mode, branch_mode::full);
  EXPECT_EQ(parse_branch(R"({"diff":true})")->mode, branch_mode::diff);
  EXPECT_EQ(parse_branch(R"({"diff":false})")->mode, branch_mode::full);
  EXPECT_THAT(failure_of(parse_branch(R"({"diff":true,"mode":"live"})")), HasSubstr("not both"));
  EXPECT_THAT(failure_of(parse_branch(R"({"mode":"fast"})")), HasSubstr("live, full or diff"));
  EXPECT_THAT(failure_of(parse_branch(R"({"wait":1})")), HasSubstr("true or false"));
  EXPECT_THAT(failure_of(parse_branch(R"({"measure_diff":true})")), HasSubstr("branch with \"mode\": \"diff\""));
}

TEST(http_status, every_kind_of_error_has_its_status_and_comes_back_by_its_code) {
  const std::vector<std::pair<errc, unsigned>> wanted = {{errc::invalid_argument, 400}, {errc::not_found, 404},
                                                         {errc::already_exists, 409},   {errc::conflict, 409},
                                                         {errc::unsupported, 409},      {errc::unavailable, 503},
                                                         {errc::no_space, 503},         {errc::deadline_exceeded, 503},
                                                         {errc::cancelled, 409},        {errc::io, 500},
                                                         {errc::corrupt, 500},          {errc::internal, 500}};
  for (const auto& [code, status] : wanted) {
    EXPECT_EQ(http_status(code), status) << to_string(code);
    EXPECT_EQ(errc_of_answer(status, to_string(code)), code);
  }
  EXPECT_EQ(errc_of_answer(404, ""), errc::not_found);
  EXPECT_EQ(errc_of_answer(409, "?"), errc::conflict);
  EXPECT_EQ(errc_of_answer(503, ""), errc::unavailable);
  EXPECT_EQ(errc_of_answer(413, ""), errc::invalid_argument);
  EXPECT_EQ(errc_of_answer(502, ""), errc::internal);
}

}  // namespace
}  // namespace coppice
