// An audit log on a disk whose writes get stuck: the API answers, and no change goes unrecorded.
#include <gmock/gmock.h>

#include "api/audit_log.hpp"
#include "api/server.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/support/stuck_disk.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::seconds patience{60};

class stuck_audit_log : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!disk_.mounted()) GTEST_SKIP() << "no FUSE can be mounted here";
    log_ = *audit_log::open(disk_.file(), 1 << 30);
    api_server_options options;
    options.on_request = [this](const request_record& request) { log_->record(request); };
    options.may_change = [this] { return log_->has_room(); };
    api_ = *api_server::start("127.0.0.1", 0, plane_, std::move(options));
    plane_.sandboxes["a"].id = "a";
  }
  void TearDown() override { api_.reset(); }
  unsigned status(const std::string& method, const std::string& target) const {
    const auto answer = api_client::create("127.0.0.1:" + std::to_string(api_->port()))->send(method, target);
    EXPECT_TRUE(answer.ok()) << answer.error().message();
    return answer.ok() ? answer->status : 0;
  }
  // Until it takes no more.
  void fill() const {
    request_record read;
    read.method = "GET";
    read.target = "/filler";
    log_->record(read);
    ASSERT_TRUE(disk_.wait_for_stuck_write());  // or the writer would make room once more
    while (log_->has_room()) log_->record(read);
  }
  std::string written() const {
    const auto content = disk_.content();
    const std::string text(reinterpret_cast<const char*>(content.data()), content.size());
    return text.substr(0, text.find('\0'));
  }

  stuck_disk disk_{8 * mib, 1, stuck_disk::of::appending};
  fake_control_plane plane_;
  std::unique_ptr<audit_log> log_;
  std::unique_ptr<api_server> api_;
};

TEST_F(stuck_audit_log, holds_up_no_client) {
  EXPECT_EQ(status("GET", "/healthz"), 200U);
  ASSERT_TRUE(disk_.wait_for_stuck_write());
  EXPECT_EQ(status("GET", "/metrics"), 200U);
  EXPECT_EQ(status("POST", "/v1/sandboxes/a/branch"), 201U) << "there is room for its line";
  EXPECT_FALSE(log_->flush(std::chrono::milliseconds(1)));
  disk_.release();
  EXPECT_TRUE(log_->flush(patience));
  EXPECT_THAT(written(), HasSubstr("/v1/sandboxes/a/branch"));
}

TEST_F(stuck_audit_log, that_is_full_has_changes_refused_and_says_what_it_misses) {
  fill();
  plane_.on_call = [] { ADD_FAILURE() << "nothing may be changed"; };
  EXPECT_EQ(status("DELETE", "/v1/sandboxes/a"), 503U);
  EXPECT_EQ(status("GET", "/healthz"), 200U);
  EXPECT_EQ(log_->dropped(), 2U);
  plane_.on_call = nullptr;
  disk_.release();
  ASSERT_TRUE(log_->flush(patience));
  EXPECT_EQ(status("DELETE", "/v1/sandboxes/a"), 204U);
  ASSERT_TRUE(log_->flush(patience));
  const auto text = written();
  EXPECT_THAT(text, HasSubstr("\"event\":\"lines_dropped\",\"lines\":2}\n"));
  EXPECT_LT(text.find("lines_dropped"), text.find("DELETE")) << "where they would have stood";
}

TEST_F(stuck_audit_log, that_is_full_keeps_the_line_of_a_change_that_had_begun) {
  plane_.hold = true;
  std::thread changing([&] { EXPECT_EQ(status("DELETE", "/v1/sandboxes/a"), 204U); });
  ASSERT_TRUE(plane_.wait_for_held(1));
  fill();
  plane_.release();
  changing.join();
  EXPECT_EQ(log_->dropped(), 0U);
  disk_.release();
  ASSERT_TRUE(log_->flush(patience));
  EXPECT_THAT(written(), HasSubstr("DELETE"));
}

TEST_F(stuck_audit_log, does_not_keep_the_daemon_from_ending) {
  fill();
  api_.reset();
  log_.reset();  // hangs here if the end can wait for ever
}

}  // namespace
}  // namespace coppice
