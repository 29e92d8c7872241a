// TLS and unix sockets: nobody listens in, and only who may connect does.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>

#include "api/server.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/api/raw_client.hpp"
#include "tests/security/certificates.hpp"

namespace coppice {
namespace {

using ::testing::HasSubstr;

class tls : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { made_ = std::make_unique<certificates>(); }
  static void TearDownTestSuite() { made_.reset(); }

  void start(bool wants_certificates, api_server_options options = {}) {
    options.tls = made_->server(wants_certificates);
    options.on_request = [this](const request_record& request) {
      const std::lock_guard lock(mutex_);
      who_ = request.who;
    };
    options.on_connection = [this](const connection_record& connection) {
      const std::lock_guard lock(mutex_);
      if (connection.what == connection_record::change::tls_failed) failures_.emplace_back(connection.reason);
    };
    auto started = api_server::start("127.0.0.1", 0, plane_, std::move(options));
    ASSERT_TRUE(started.ok()) << started.error().message();
    api_ = *std::move(started);
  }
  result<http_answer> send(const tls_files& files, const std::string& host = "127.0.0.1") const {
    const auto client = api_client::create("https://" + host + ":" + std::to_string(api_->port()), {"", files});
    EXPECT_TRUE(client.ok()) << client.error().message();
    return client->send("GET", "/v1/snapshots");
  }

  static std::unique_ptr<certificates> made_;
  fake_control_plane plane_;
  std::mutex mutex_;
  std::string who_;
  std::vector<std::string> failures_;  // of handshakes
  std::unique_ptr<api_server> api_;
};
std::unique_ptr<certificates> tls::made_;

TEST_F(tls, serves_clients_that_trust_its_ca) {
  start(false);
  for (const char* host : {"127.0.0.1", "localhost"}) {
    const auto answer = send(made_->client(), host);
    ASSERT_TRUE(answer.ok()) << answer.error().message();
    EXPECT_EQ(answer->status, 200u);
  }
}

TEST_F(tls, a_client_refuses_a_server_of_another_ca_or_name) {
  start(false);
  EXPECT_THAT(send(made_->client("", "other-ca")).error().message(), HasSubstr("--tls-ca"));
  EXPECT_FALSE(send({}).ok()) << "the system's CAs did not sign it";
  EXPECT_FALSE(send(made_->client(), "127.0.0.2").ok()) << "the certificate is for another address";
}

TEST_F(tls, who_shows_no_certificate_or_one_of_another_ca_is_not_served) {
  start(true);
  plane_.on_call = [] { ADD_FAILURE() << "nothing may reach the control plane"; };
  EXPECT_FALSE(send(made_->client()).ok());
  EXPECT_FALSE(send(made_->client("stranger")).ok());
  plane_.on_call = nullptr;
  const auto answer = send(made_->client("client"));
  ASSERT_TRUE(answer.ok()) << answer.error().message();
  EXPECT_EQ(answer->status, 200u);
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(who_, "certificate client");
  EXPECT_EQ(failures_.size(), 2U) << "each is reported";
}

TEST_F(tls, who_speaks_plain_http_or_nothing_is_hung_up_on) {
  start(false, {.limits = {.handshake_timeout = std::chrono::milliseconds(100)}});
  raw_client plain(api_->port());
  plain.send("GET /v1/snapshots HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(plain.hung_up(20'000));
  raw_client silent(api_->port());
  EXPECT_TRUE(silent.hung_up(20'000));
  EXPECT_TRUE(send(made_->client()).ok());
}

TEST_F(tls, old_versions_are_refused) {
  start(false);
  const auto accepts = [&](const std::string& version) {  // the client may end with a failure all the same
    return std::system(("openssl s_client -connect 127.0.0.1:" + std::to_string(api_->port()) + " -CAfile " +
                        made_->file("ca.crt") + " -cipher DEFAULT@SECLEVEL=0 -" + version +
                        " < /dev/null 2>&1 | grep -q 'Cipher is [A-Z]'")
                           .c_str()) == 0;
  };
  EXPECT_FALSE(accepts("tls1_1"));
  EXPECT_TRUE(accepts("tls1_2"));
  EXPECT_TRUE(accepts("tls1_3"));
}

TEST_F(tls, events_come_over_it_too) {
  start(false);
  const std::string command =
      R"(printf 'GET /v1/events HTTP/1.1\r\n\r\n' | openssl s_client -quiet -connect 127.0.0.1:)" +
      std::to_string(api_->port()) + " -CAfile " + made_->file("ca.crt") + " 2> /dev/null";
  const std::unique_ptr<FILE, decltype(&::pclose)> child(::popen(command.c_str(), "r"), &::pclose);
  ASSERT_TRUE(child);
  std::string got;
  char line[512];
  while (::fgets(line, sizeof line, child.get()) != nullptr) {
    got += line;
    if (std::string_view(line).starts_with(": coppiced")) plane_.emit({event_kind::branch_ready, "sb-1", "b1", {}});
    if (std::string_view(line).starts_with("event: ")) break;
  }
  EXPECT_THAT(got, HasSubstr("event: branch.ready\n"));
  api_.reset();  // which ends the stream
}

TEST_F(tls, files_that_can_not_be_used_are_named) {
  api_server_options options;
  options.tls = tls_files{"/no/such.crt", made_->file("server.key"), ""};
  EXPECT_THAT(api_server::start("127.0.0.1", 0, plane_, options).error().message(), HasSubstr("/no/such.crt"));
  options.tls = tls_files{made_->file("server.crt"), made_->file("client.key"), ""};
  EXPECT_THAT(api_server::start("127.0.0.1", 0, plane_, options).error().message(), HasSubstr("client.key"));
  options.tls = tls_files{made_->file("server.crt"), made_->file("no-such.key"), ""};
  EXPECT_THAT(api_server::start("127.0.0.1", 0, plane_, options).error().message(),
              AllOf(HasSubstr("no-such.key"), HasSubstr("No such file")));
  const auto open_key = made_->file("open.key");
  std::filesystem::copy_file(made_->file("server.key"), open_key);
  std::filesystem::permissions(open_key, std::filesystem::perms(0644));
  options.tls = tls_files{made_->file("server.crt"), open_key, ""};
  EXPECT_THAT(api_server::start("127.0.0.1", 0, plane_, options).error().message(),
              AllOf(HasSubstr("open.key"), HasSubstr("chmod o=")));
  EXPECT_FALSE(api_client::create("https://a:1", {"", {"", "", "/no/such.crt"}}).ok());
  EXPECT_FALSE(api_client::create("https://a:1", {"", {made_->file("client.crt"), "", ""}}).ok());
}

class unix_socket : public ::testing::Test {
 protected:
  result<std::unique_ptr<api_server>> start() { return api_server::start("unix:" + path_, 0, plane_); }

  fake_control_plane plane_;
  temp_dir folder_;
  const std::string path_ = (folder_.path() / "api.sock").string();
};

TEST_F(unix_socket, serves_only_its_user_and_is_gone_afterwards) {
  std::string who;
  std::mutex mutex;
  {
    api_server_options options;
    options.on_request = [&](const request_record& request) {
      const std::lock_guard lock(mutex);
      who = std::string(request.who) + " at " + std::string(request.peer);
    };
    const auto api = *api_server::start("unix:" + path_, 0, plane_, std::move(options));
    struct stat about {};
    ASSERT_EQ(::stat(path_.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0600u);
    EXPECT_EQ(api_client::create("unix:" + path_)->send("GET", "/healthz")->status, 200u);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(who, "uid " + std::to_string(::getuid()) + " at unix");
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(unix_socket, one_in_use_is_a_conflict_and_a_file_is_left_alone) {
  {
    const auto first = *start();
    EXPECT_EQ(start().error().code, errc::conflict);
    EXPECT_EQ(api_client::create("unix:" + path_)->send("GET", "/healthz")->status, 200u);
  }
  std::ofstream(path_) << "mine";
  EXPECT_EQ(start().error().code, errc::conflict);
  EXPECT_EQ(std::filesystem::file_size(path_), 4u);
}

TEST_F(unix_socket, one_that_a_killed_daemon_left_is_replaced) {
  {
    const unique_fd left(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path_.copy(name.sun_path, sizeof name.sun_path - 1);
    // SAFETY: bind(2) takes every address family by this cast.
    ASSERT_EQ(::bind(left.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  }
  EXPECT_TRUE(start().ok());
}

}  // namespace
}  // namespace coppice
