// coppice-vmm's HTTP, against peers that behave and peers that don't. The real program, with its machines on threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "base/file.hpp"
#include "tests/reference_vmm/call_table.hpp"
#include "tests/reference_vmm/vmm_rig.hpp"
#include "vmm/process.hpp"

namespace coppice::reference {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A socket that sends exactly what a test says.
class raw_peer {
 public:
  explicit raw_peer(const std::filesystem::path& socket) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::strncpy(to.sun_path, socket.c_str(), sizeof to.sun_path - 1);
    // SAFETY: connect(2) takes every address family by this cast.
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  // False if the server hung up.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const auto sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  // What comes until `end` is there (once more than before), or until the server hangs up.
  std::string read_until(std::string_view end) {
    std::string got;
    char buffer[4096];
    while (end.empty() || got.find(end) == std::string::npos) {
      pollfd wait{fd_.get(), POLLIN, 0};
      if (::poll(&wait, 1, 20'000) <= 0) return got + "<timeout>";
      const auto count = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (count <= 0) return got + "<hung up>";
      got.append(buffer, static_cast<std::size_t>(count));
    }
    return got;
  }
  void hang_up() { fd_.reset(); }

 private:
  unique_fd fd_;
};

const std::string get_state = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

std::string put(const std::string& path, const std::string& body) {
  return "PUT " + path + " HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

struct api_server_test : vmm_test {
  void SetUp() override {
    use(on_threads());
    if (HasFatalFailure()) return;
    vm = start("vm");
  }
  void still_serves() {
    raw_peer other(vm->socket());
    other.send(get_state);
    EXPECT_THAT(other.read_until("}"), StartsWith("HTTP/1.1 200 "));
    EXPECT_TRUE(vm->runs());
  }
  std::unique_ptr<test_vmm> vm;
};

TEST_F(api_server_test, its_capabilities_are_those_of_live_branching) {
  EXPECT_EQ(host_->capabilities().app_name, "coppice-vmm");
  EXPECT_TRUE(host_->capabilities().live()) << host_->capabilities().missing_for_live();
}

TEST_F(api_server_test, it_says_on_stdout_that_the_journal_runs_on_threads) {
  EXPECT_TRUE(vm->logs("--no-kvm: only the journal guest runs, on threads instead of vCPUs"));
}

TEST_F(api_server_test, one_connection_serves_many_requests_and_requests_sent_at_once_are_answered_in_order) {
  raw_peer peer(vm->socket());
  for (int i = 0; i < 3; ++i) {
    peer.send(get_state);
    EXPECT_THAT(peer.read_until("}"), HasSubstr("\"state\":\"Not started\""));
  }
  peer.send(put("/actions", "{}") + get_state + "GET /version HTTP/1.1\r\n\r\n");
  const auto answers = peer.read_until("firecracker_version");
  const auto refusal = answers.find("missing field"), state = answers.find("Not started");
  EXPECT_NE(refusal, std::string::npos) << answers;
  EXPECT_LT(refusal, state) << answers;
}

TEST_F(api_server_test, two_connections_do_not_disturb_each_other) {
  raw_peer first(vm->socket()), second(vm->socket());
  for (int i = 0; i < 3; ++i) {
    for (raw_peer* peer : {&first, &second}) {
      peer->send(get_state);
      EXPECT_THAT(peer->read_until("}"), StartsWith("HTTP/1.1 200 "));
    }
  }
}

TEST_F(api_server_test, half_a_request_keeps_nobody_waiting_and_may_be_finished_later) {
  raw_peer slow(vm->socket());
  const std::string whole = put("/machine-config", R"({"vcpu_count":3,"mem_size_mib":64})");
  for (const std::size_t half : {std::size_t{3}, whole.find("\r\n\r\n"), whole.size() - 5}) {
    slow.send(whole.substr(0, half));
    still_serves();
    slow.send(whole.substr(half));
    EXPECT_THAT(slow.read_until("\r\n\r\n"), StartsWith("HTTP/1.1 204 "));
  }
}

TEST_F(api_server_test, a_peer_that_leaves_at_any_point_harms_nobody) {
  const std::string whole = put("/machine-config", R"({"vcpu_count":3,"mem_size_mib":64})");
  for (std::size_t sent = 0; sent <= whole.size(); sent += 7) {
    raw_peer leaving(vm->socket());
    leaving.send(whole.substr(0, sent));
    leaving.hang_up();
  }
  still_serves();
}

TEST_F(api_server_test, a_body_of_51200_bytes_is_read_and_one_more_is_refused_aloud) {
  raw_peer peer(vm->socket());
  const auto spaces = [](std::size_t size) { return "{" + std::string(size - 2, ' ') + "}"; };
  peer.send(put("/actions", spaces(51'200)));
  EXPECT_THAT(peer.read_until("}"), HasSubstr("missing field"));
  for (const std::size_t size : {std::size_t{51'201}, std::size_t{1} << 20}) {
    raw_peer other(vm->socket());
    other.send(put("/actions", spaces(size)));  // it may hang up before it has read all
    EXPECT_THAT(other.read_until(""), AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("51200"), HasSubstr("hung up")));
  }
  still_serves();
}

TEST_F(api_server_test, what_is_no_http_is_refused_aloud) {
  raw_peer peer(vm->socket());
  peer.send("hello, is anybody there?\r\n\r\n");
  EXPECT_THAT(peer.read_until(""), AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("fault_message")));
  raw_peer other(vm->socket());
  other.send("GET / HTTP/1.1\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_THAT(other.read_until(""), StartsWith("HTTP/1.1 400 "));
  still_serves();
}

TEST_F(api_server_test, a_connection_ends_when_the_peer_asks_for_it) {
  raw_peer peer(vm->socket());
  peer.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(peer.read_until(""), AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("<hung up>")));
}

TEST_F(api_server_test, a_socket_that_is_taken_or_cannot_be_is_said) {
  for (const auto& [socket, why] : {std::pair(vm->socket(), std::string("exists")),
                                    std::pair(dir_.path() / "none" / "s", std::string("No such file"))}) {
    auto child = spawn_process({COPPICE_VMM, {"--api-sock", socket}, dir_.path() / "other.log"});
    ASSERT_TRUE(child);
    const auto ended = child->wait(patience);
    ASSERT_TRUE(ended && *ended);
    EXPECT_EQ((*ended)->code, 1);
    EXPECT_THAT(*read_text_file(dir_.path() / "other.log"), AllOf(HasSubstr(socket.string()), HasSubstr(why)));
  }
  still_serves();
}

TEST_F(api_server_test, wrong_arguments_end_it_with_code_2_and_a_message) {
  for (const auto& [arguments, why] :
       {std::pair(std::vector<std::string>{"--api-sock", "s", "--fault", "PATCH /vm:sleep"},
                  "'PATCH /vm:sleep' is no fault"),
        std::pair(std::vector<std::string>{}, "--api-sock is required"),
        std::pair(std::vector<std::string>{"--api-sock", "s", "--firecracker"}, "--firecracker")}) {
    auto child = spawn_process({COPPICE_VMM, arguments, dir_.path() / "other.log"});
    ASSERT_TRUE(child);
    const auto ended = child->wait(patience);
    ASSERT_TRUE(ended && *ended);
    EXPECT_EQ((*ended)->code, 2);
    EXPECT_THAT(*read_text_file(dir_.path() / "other.log"), HasSubstr(why));
  }
}

TEST_F(api_server_test, sigterm_ends_it_whether_it_runs_or_not) {
  ASSERT_EQ(::kill(vm->pid(), SIGTERM), 0);
  EXPECT_EQ(vm->exited().signal, SIGTERM);
  vm = boot("running");
  ASSERT_EQ(::kill(vm->pid(), SIGTERM), 0);
  EXPECT_EQ(vm->exited().signal, SIGTERM);
}

TEST_F(api_server_test, a_snapshot_that_cannot_be_loaded_is_answered_then_the_process_ends) {
  vm->refuses(api_requests::load_snapshot(dir_.path() / "none", dir_.path() / "none", false, false, false),
              "Load snapshot error");
  EXPECT_EQ(vm->exited().code, 1);
}

}  // namespace
}  // namespace coppice::reference
