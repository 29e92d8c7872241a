// What coppiced agrees to serve, and to whom.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "daemon/daemon_settings.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class exposure : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(tokens_) << "ops write 0123456789abcdef\n";
    ::chmod(tokens_.c_str(), 0600);
  }
  static daemon_settings listening(const std::string& address) {
    daemon_settings settings;
    settings.address = *parse_listen_address(address);
    return settings;
  }
  daemon_settings with_tokens(daemon_settings settings) const {
    settings.token_file = tokens_;
    return settings;
  }
  static daemon_settings with_tls(daemon_settings settings) {
    settings.tls.certificate = settings.tls.key = "/server.pem";  // read when the server starts
    return settings;
  }

  temp_dir folder_;
  const std::string tokens_ = (folder_.path() / "tokens").string();
};

TEST_F(exposure, others_are_served_only_with_tokens_and_tls_or_on_request) {
  for (const char* address :
       {"0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:127.0.0.1]:1", "host:1"}) {
    const auto open = listening(address);
    for (const auto& settings : {open, with_tokens(open), with_tls(open)}) {
      const auto options = secure_options(settings);
      ASSERT_FALSE(options.ok()) << address;
      EXPECT_THAT(options.error().message(), AllOf(HasSubstr("--token-file"), HasSubstr("--tls-cert")));
    }
    EXPECT_TRUE(secure_options(with_tokens(with_tls(open))).ok());
    auto insecure = open;
    insecure.insecure_listen = true;
    EXPECT_TRUE(secure_options(insecure).ok());
  }
}

TEST_F(exposure, local_callers_are_served_without) {
  for (const char* address : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/run/coppiced.sock"}) {
    EXPECT_TRUE(secure_options(listening(address)).ok()) << address;
  }
}

TEST_F(exposure, any_path_is_allowed_only_to_local_callers_without_tokens) {
  const auto allows = [](const daemon_settings& settings) {
    return secure_options(settings)->paths.resolve("/etc").ok();
  };
  EXPECT_TRUE(allows(listening("127.0.0.1:1")));
  EXPECT_TRUE(allows(listening("unix:/s")));
  EXPECT_FALSE(allows(with_tokens(listening("127.0.0.1:1"))));
  auto insecure = listening("0.0.0.0:1");
  insecure.insecure_listen = true;
  EXPECT_FALSE(allows(insecure));
  insecure.allowed_paths = {"/etc"};
  EXPECT_TRUE(allows(insecure));
}

TEST_F(exposure, web_pages_are_refused_where_they_could_reach_a_daemon_without_tokens) {
  EXPECT_TRUE(secure_options(listening("127.0.0.1:1"))->refuses_web_pages);
  EXPECT_TRUE(secure_options(listening("[::1]:1"))->refuses_web_pages);
  EXPECT_FALSE(secure_options(with_tokens(listening("127.0.0.1:1")))->refuses_web_pages) << "a page has no token";
  EXPECT_FALSE(secure_options(listening("unix:/s"))->refuses_web_pages) << "a page can't open it";
}

TEST_F(exposure, a_token_file_that_can_not_be_used_is_an_error_not_an_open_door) {
  auto settings = listening("127.0.0.1:1");
  settings.token_file = folder_.path() / "none";
  EXPECT_FALSE(secure_options(settings).ok());
  std::ofstream(folder_.path() / "none") << "\n";
  ::chmod(settings.token_file.c_str(), 0600);
  EXPECT_FALSE(secure_options(settings).ok());
}

}  // namespace
}  // namespace coppice
