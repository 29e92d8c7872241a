#include "cli/daemon_process.hpp"

#include <gmock/gmock.h>
#include <signal.h>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::seconds process_deadline{20};

// A shell script in the place of coppiced.
class daemon_process_test : public ::testing::Test {
 protected:
  result<std::unique_ptr<daemon_process>> start(const std::string& script,
                                                std::chrono::milliseconds limit = process_deadline) {
    const auto path = folder_.path() / "script";
    EXPECT_TRUE(write_text_file(path, "#!/bin/sh\n" + script + "\n").ok());
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return daemon_process::start(path, {"--root", "r"}, folder_.path() / "log", limit);
  }
  temp_dir folder_;
};

TEST_F(daemon_process_test, is_started_once_it_listens_and_stopped_by_sigterm) {
  auto process =
      start("trap 'exit 0' TERM; echo \"x: listening on http://127.0.0.1:77\" >&2; while :; do sleep 0.01; done");
  ASSERT_TRUE(process.ok()) << process.error().message();
  EXPECT_EQ((*process)->url(), "http://127.0.0.1:77");
  EXPECT_TRUE((*process)->stop(process_deadline).ok());
}

TEST_F(daemon_process_test, one_that_ends_at_once_is_an_error_with_its_log) {
  auto process = start("echo 'root is taken' >&2; exit 1");
  ASSERT_FALSE(process.ok());
  EXPECT_THAT(process.error().message(), HasSubstr("exit code 1"));
  EXPECT_THAT(process.error().message(), HasSubstr("root is taken"));
}

TEST_F(daemon_process_test, one_that_never_listens_is_given_up_on_and_killed) {
  auto process = start("exec sleep 1000", std::chrono::milliseconds(100));
  ASSERT_FALSE(process.ok());
  EXPECT_EQ(process.error().code, errc::deadline_exceeded);
}

TEST_F(daemon_process_test, one_that_does_not_stop_is_killed) {
  auto process = start("trap '' TERM; echo 'listening on http://a:1'; while :; do sleep 0.01; done");
  ASSERT_TRUE(process.ok());
  const pid_t pid = (*process)->pid();
  EXPECT_EQ((*process)->stop(std::chrono::milliseconds(100)).error().code, errc::deadline_exceeded);
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST_F(daemon_process_test, a_bad_exit_is_an_error_of_stop) {
  auto process = start("trap 'exit 3' TERM; echo 'listening on http://a:1'; while :; do sleep 0.01; done");
  ASSERT_TRUE(process.ok());
  EXPECT_THAT((*process)->stop(process_deadline).error().message(), HasSubstr("exit code 3"));
}

TEST_F(daemon_process_test, a_missing_binary_is_not_found) {
  const auto process = daemon_process::start("/nowhere/coppiced", {}, folder_.path() / "log", process_deadline);
  EXPECT_EQ(process.error().code, errc::not_found);
}

}  // namespace
}  // namespace coppice
