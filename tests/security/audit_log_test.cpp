// The audit log: one line for each request, appended, and never too much of them.
#include "api/audit_log.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class auditing : public ::testing::Test {
 protected:
  std::unique_ptr<audit_log> open(std::uint64_t most_bytes = mib) const { return *audit_log::open(file_, most_bytes); }
  static void record(audit_log& log, std::string_view target) {
    request_record request;
    request.method = "POST";
    request.target = target;
    request.id = "id-1";
    request.who = "ops";
    request.peer = "127.0.0.1:4711";
    request.status = 201;
    request.took = std::chrono::milliseconds(12);
    log.record(request);
    EXPECT_TRUE(log.flush(std::chrono::seconds(20)));
  }
  static std::vector<json> lines(const fs::path& file) {
    std::vector<json> found;
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) found.push_back(json::parse(line));
    return found;
  }

  temp_dir folder_;
  const fs::path file_ = folder_.path() / "audit.log";
};

TEST_F(auditing, a_line_tells_who_did_what_and_what_came_of_it) {
  record(*open(), "/v1/snapshots");
  const auto line = lines(file_).at(0);
  EXPECT_EQ(line["who"], "ops");
  EXPECT_EQ(line["request_id"], "id-1");
  EXPECT_EQ(line["peer"], "127.0.0.1:4711");
  EXPECT_EQ(line["method"], "POST");
  EXPECT_EQ(line["path"], "/v1/snapshots");
  EXPECT_EQ(line["status"], 201);
  EXPECT_DOUBLE_EQ(line["duration_ms"], 12.0);
  EXPECT_THAT(line["time"].get<std::string>(), ::testing::MatchesRegex("....-..-..T..:..:..\\.......Z"));
}

TEST_F(auditing, a_line_tells_what_was_named_and_made_and_only_that) {
  request_record request;
  request_details details;
  details.snapshot_tag = "base";
  details.count = 2;
  details.made = {"sb-1", "sb-2"};
  request.details = &details;
  request.replayed = true;
  const auto log = open();
  log->record(request);
  log->record(audit_event{"tls_failed", "127.0.0.1:1", "no certificate"});
  ASSERT_TRUE(log->flush(std::chrono::seconds(20)));
  const auto line = lines(file_).at(0);
  EXPECT_EQ(line["event"], "request");
  EXPECT_EQ(line["snapshot_tag"], "base");
  EXPECT_EQ(line["count"], 2);
  EXPECT_EQ(line["made"], json({"sb-1", "sb-2"}));
  EXPECT_EQ(line["replayed"], true);
  for (const char* absent : {"tag", "kernel", "initrd", "rootfs", "mode", "program"})
    EXPECT_FALSE(line.contains(absent));
  const auto event = lines(file_).at(1);
  EXPECT_EQ(event["event"], "tls_failed");
  EXPECT_EQ(event["peer"], "127.0.0.1:1");
  EXPECT_EQ(event["detail"], "no certificate");
}

TEST_F(auditing, a_path_can_not_forge_a_line) {
  record(*open(), "/v1/x\"}\n{\"who\":\"nobody\"}\xff");
  ASSERT_EQ(lines(file_).size(), 1u);
  EXPECT_EQ(lines(file_)[0]["who"], "ops");
}

TEST_F(auditing, a_restart_appends_and_nobody_else_can_read_it) {
  record(*open(), "/1");
  record(*open(), "/2");
  EXPECT_EQ(lines(file_).size(), 2u);
  struct stat about {};
  ASSERT_EQ(::stat(file_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
}

TEST_F(auditing, a_full_file_is_set_aside_and_five_are_kept_with_no_line_lost_between_them) {
  const auto log = open(600);
  for (int i = 0; i < 60; ++i) record(*log, "/" + std::to_string(i));
  EXPECT_FALSE(fs::exists(file_.string() + ".6"));
  std::vector<json> all;
  for (const char* suffix : {".5", ".4", ".3", ".2", ".1", ""}) {
    EXPECT_LE(fs::file_size(file_.string() + suffix), 600u);
    for (const auto& line : lines(file_.string() + suffix)) all.push_back(line["path"]);
  }
  ASSERT_GE(all.size(), 6u);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], "/" + std::to_string(60 - all.size() + i));
}

TEST_F(auditing, while_no_new_file_can_be_had_the_old_one_grows_and_none_is_lost) {
  const auto log = open(600);
  for (int i = 0; i < 10; ++i) record(*log, "/" + std::to_string(i));
  const auto kept = lines(file_.string() + ".2");
  fs::create_directories(file_.string() + ".new/in-the-way");
  for (int i = 0; i < 10; ++i) record(*log, "/later");
  EXPECT_EQ(lines(file_.string() + ".2"), kept);
  EXPECT_GE(lines(file_).size(), 10u);
  fs::remove_all(file_.string() + ".new");
  record(*log, "/last");
  EXPECT_EQ(lines(file_).size(), 1u);
  EXPECT_EQ(lines(file_.string() + ".3"), kept);
}

TEST_F(auditing, a_link_is_not_followed_and_a_missing_folder_is_told) {
  fs::create_symlink(folder_.path() / "elsewhere", file_);
  EXPECT_FALSE(audit_log::open(file_, mib).ok());
  EXPECT_EQ(audit_log::open(folder_.path() / "no" / "audit.log", mib).error().code, errc::not_found);
}

}  // namespace
}  // namespace coppice
