#include "store/manifest.hpp"

#include <gmock/gmock.h>

#include "base/units.hpp"

namespace coppice {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

snapshot_record full_record() {
  snapshot_record record;
  record.tag = "b1";
  record.created_at_unix = 1'790'000'000;
  record.branched_from = "sb-7";
  record.parent_tag = "base";
  record.backing = "shared";
  record.vmm = "Firecracker 1.12.1";
  record.mode = branch_mode::diff;
  record.memory_bytes = 4 * mib;
  record.vcpus = 3;
  record.read_only_drives = {"/a", "/b \"quoted\""};
  record.pause = pause_breakdown{1us, 2us, 3us, 4us, 5us};
  record.copy = copy_summary{1, 2, 3, 4, 5, 6, 7us, 8us, 9us};
  record.memory_chunk_checksums = {0, ~std::uint64_t{0}};
  record.vmstate_checksum = 0x0123456789abcdef;
  record.vmstate_bytes = 17;
  return record;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(manifest, every_field_survives_the_way_to_json_and_back) {
  const auto record = full_record();
  const auto json = manifest_to_json(record);
  const auto back = manifest_from_json(json, "/r/snapshots/b1");
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(back->directory, "/r/snapshots/b1");
  // Equal text of what was read means equal fields; that each field is in the text, the next test says.
  EXPECT_EQ(manifest_to_json(*back), json);
  EXPECT_EQ(back->mode, record.mode);
  EXPECT_EQ(back->memory_chunk_checksums, record.memory_chunk_checksums);
  EXPECT_EQ(back->copy->longest_fault, 9us);
  EXPECT_EQ(back->pause->total, 5us);
}

TEST(manifest, a_person_can_read_it) {
  const auto json = manifest_to_json(full_record());
  for (const char* line : {"\n \"format_version\": 1,\n",
                           "\"tag\": \"b1\"",
                           "\"created_at_unix\": \"1790000000\"",
                           "\"mode\": \"diff\"",
                           "\"branched_from\": \"sb-7\"",
                           "\"parent_tag\": \"base\"",
                           "\"backing\": \"shared\"",
                           "\"vcpus\": 3",
                           "\"vmm\": \"Firecracker 1.12.1\"",
                           "\"memory_bytes\": \"4194304\"",
                           "\"/a\"",
                           "\"pause_us\": \"1\"",
                           "\"snapshot_us\": \"2\"",
                           "\"rearm_us\": \"3\"",
                           "\"resume_us\": \"4\"",
                           "\"total_us\": \"5\"",
                           "\"bulk_pages\": \"1\"",
                           "\"captured_pages\": \"2\"",
                           "\"zero_pages\": \"3\"",
                           "\"hole_pages\": \"4\"",
                           "\"faults\": \"5\"",
                           "\"written_bytes\": \"6\"",
                           "\"prearm_us\": \"7\"",
                           "\"copy_us\": \"8\"",
                           "\"longest_fault_us\": \"9\"",
                           "\"vmstate_bytes\": \"17\"",
                           "\"vmstate_checksum\": \"0123456789abcdef\"",
                           "\"0000000000000000\"",
                           "\"ffffffffffffffff\""}) {
    EXPECT_THAT(json, HasSubstr(line));
  }
}

TEST(manifest, a_base_snapshot_has_neither_mode_nor_pause_nor_copy) {
  auto record = full_record();
  record.mode.reset();
  record.pause.reset();
  record.copy.reset();
  const auto back = manifest_from_json(manifest_to_json(record), "/r/snapshots/b1");
  ASSERT_TRUE(back.ok());
  EXPECT_FALSE(back->mode || back->pause || back->copy);
}

TEST(manifest, values_that_cannot_be_are_damage) {
  const auto good = manifest_to_json(full_record());
  const auto reason = [&](const std::string& from, const std::string& to) {
    const auto back = manifest_from_json(replaced(good, from, to), "/r/snapshots/b1");
    EXPECT_FALSE(back.ok()) << to;
    if (back.ok()) return std::string();
    EXPECT_EQ(back.error().code, errc::corrupt);
    return back.error().message();
  };
  EXPECT_THAT(reason("\"format_version\": 1", "\"format_version\": 0"), HasSubstr("no format_version"));
  EXPECT_THAT(reason("\"tag\": \"b1\"", "\"tag\": \"b2\""), HasSubstr("'b2'"));
  EXPECT_THAT(reason("\"4194304\"", "\"4194305\""), HasSubstr("multiple of 4096"));
  EXPECT_THAT(reason("\"4194304\"", "\"8388608\""), HasSubstr("number of chunk checksums"));
  EXPECT_THAT(reason("\"diff\"", "\"dif\""), HasSubstr("unknown branch mode"));
  EXPECT_THAT(reason("0123456789abcdef", "123"), HasSubstr("vmstate_checksum"));
  EXPECT_THAT(reason("ffffffffffffffff", "gfffffffffffffff"), HasSubstr("chunk's checksum"));
  EXPECT_THAT(reason("\"vcpus\": 3", "\"vcpus\": \"many\""), HasSubstr("damaged manifest"));
}

TEST(manifest, a_newer_format_is_named_even_if_it_has_unknown_fields) {
  const auto back = manifest_from_json(R"({"format_version": 9, "new_field": {"x": 1}})", "/r/snapshots/b1");
  ASSERT_FALSE(back.ok());
  EXPECT_EQ(back.error().code, errc::unsupported);
  EXPECT_THAT(back.error().message(), HasSubstr("format version 9 is newer"));
}

}  // namespace
}  // namespace coppice
