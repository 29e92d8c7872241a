#include "vmm/uffd_receiver.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstring>
#include <future>

#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr const char* two_regions =
    R"([{"base_host_virt_addr":140000000000000,"size":3221225472,"offset":0,"page_size":4096,"page_size_kib":4096},)"
    R"({"base_host_virt_addr":140010000003072,"size":1073741824,"offset":3221225472,"page_size_kib":4096}])";

std::string region(const std::string& size, const std::string& page) {
  return R"([{"base_host_virt_addr":4096,"size":)" + size + R"(,"offset":0,"page_size":)" + page + "}]";
}

TEST(uffd_regions, all_regions_are_read_and_both_names_of_the_page_size) {
  const auto regions = parse_uffd_regions(
      R"([{"base_host_virt_addr":8192,"size":12288,"offset":0,"page_size":4096},{"base_host_virt_addr":1048576,"size":4096,"offset":12288,"page_size_kib":4096}])");
  ASSERT_TRUE(regions) << regions.error().message();
  ASSERT_EQ(regions->size(), 2U);
  EXPECT_EQ((*regions)[0].host_address, 8192U);
  EXPECT_EQ((*regions)[0].size, 12288U);
  EXPECT_EQ((*regions)[1].host_address, 1048576U);
  EXPECT_EQ((*regions)[1].file_offset, 12288U);
}

TEST(uffd_regions, malformed_ones_are_refused_with_a_reason) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no JSON array"},
      {"[{", "no JSON array"},
      {"{}", "no JSON array"},
      {"[]", "no memory regions"},
      {"[1]", "no object"},
      {"[{}]", "no number 'base_host_virt_addr'"},
      {region("-4096", "4096"), "no number 'size'"},
      {region("\"4096\"", "4096"), "no number 'size'"},
      {region("0", "4096"), "empty"},
      {region("4097", "4096"), "whole pages"},
      {region("4096", "2097152"), "pages of 2097152"},
      {region("18446744073709547520", "4096"), "wraps"},
  };
  for (const auto& [text, reason] : cases) {
    const auto regions = parse_uffd_regions(text);
    ASSERT_FALSE(regions) << text;
    EXPECT_EQ(regions.error().code, errc::corrupt) << text;
    EXPECT_THAT(regions.error().context, HasSubstr(reason)) << text;
  }
}

struct receiver_test : testing::Test {
  std::future<result<uffd_handover>> expect(std::chrono::milliseconds deadline = 10s) {
    auto came = std::make_shared<std::promise<result<uffd_handover>>>();
    receiver->receive(socket, deadline, [this, came](result<uffd_handover> handover) {
      EXPECT_TRUE(loop->on_loop_thread());
      came->set_value(std::move(handover));
    });
    return came->get_future();
  }
  unique_fd connect() {
    unique_fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << errno;
    return fd;
  }
  void send(int to, const std::string& text, const std::vector<int>& fds) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 32)> control{};
    auto copy = text;
    iovec part{copy.data(), copy.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
      auto* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
    }
    ASSERT_EQ(::sendmsg(to, &header, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // Whether the peer of `read_end`'s pipe is closed everywhere: nobody kept a copy.
  static bool all_closed(int read_end) {
    char byte = 0;
    return ::read(read_end, &byte, 1) == 0;
  }
  void refused(result<uffd_handover> handover, const char* reason) {
    ASSERT_FALSE(handover);
    EXPECT_EQ(handover.error().code, errc::corrupt);
    EXPECT_THAT(handover.error().context, HasSubstr(reason));
    EXPECT_FALSE(std::filesystem::exists(socket));
  }

  temp_dir dir;
  std::filesystem::path socket = dir.path() / "uffd";
  std::shared_ptr<event_loop> loop = std::move(event_loop::create()).value();
  std::unique_ptr<uffd_receiver> receiver = std::make_unique<uffd_receiver>(loop);
};

TEST_F(receiver_test, a_real_userfaultfd_arrives_with_its_regions) {
  const unique_fd uffd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!uffd) GTEST_SKIP() << "userfaultfd(2) is not allowed here: " << std::strerror(errno);
  auto coming = expect();
  const auto peer = connect();
  send(peer.get(), two_regions, {uffd.get()});
  auto handover = coming.get();
  ASSERT_TRUE(handover) << handover.error().message();
  ASSERT_EQ(handover->regions.size(), 2U);
  EXPECT_EQ(handover->regions[1].file_offset, 3221225472U);
  EXPECT_NE(::fcntl(handover->uffd.get(), F_GETFD) & FD_CLOEXEC, 0);
  uffdio_api api{UFFD_API, 0, 0};
  EXPECT_EQ(::ioctl(handover->uffd.get(), UFFDIO_API, &api), 0) << "it can be used";
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(receiver_test, a_left_over_file_is_replaced_and_listening_begins_before_receive_returns) {
  { const unique_fd left_over(::open(socket.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }
  auto coming = expect();
  connect();
  refused(coming.get(), "closed without sending");
}

TEST_F(receiver_test, a_message_without_descriptor_is_refused) {
  auto coming = expect();
  const auto peer = connect();
  send(peer.get(), two_regions, {});
  refused(coming.get(), "no descriptor");
}

TEST_F(receiver_test, another_kind_of_descriptor_is_refused_and_closed) {
  auto coming = expect();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const unique_fd read_end(ends[0]);
  unique_fd write_end(ends[1]);
  const auto peer = connect();
  send(peer.get(), two_regions, {write_end.get()});
  write_end.reset();
  refused(coming.get(), "no userfaultfd");
  EXPECT_TRUE(all_closed(read_end.get()));
}

TEST_F(receiver_test, several_descriptors_are_refused_and_all_closed) {
  for (const std::size_t count : {2U, 16U, 30U}) {  // 30: more than there is room for
    auto coming = expect();
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    const unique_fd read_end(ends[0]);
    unique_fd write_end(ends[1]);
    const auto peer = connect();
    send(peer.get(), two_regions, std::vector<int>(count, write_end.get()));
    write_end.reset();
    refused(coming.get(), "descriptors");
    EXPECT_TRUE(all_closed(read_end.get())) << count;
  }
}

TEST_F(receiver_test, a_real_userfaultfd_with_bad_json_is_refused) {
  const unique_fd uffd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!uffd) GTEST_SKIP() << "userfaultfd(2) is not allowed here: " << std::strerror(errno);
  auto coming = expect();
  const auto peer = connect();
  send(peer.get(), "hello", {uffd.get()});
  refused(coming.get(), "no JSON array");
}

TEST_F(receiver_test, silence_ends_at_the_deadline_connected_or_not) {
  auto unconnected = expect(30ms).get();
  ASSERT_FALSE(unconnected);
  EXPECT_EQ(unconnected.error().code, errc::deadline_exceeded);
  EXPECT_FALSE(std::filesystem::exists(socket));
  auto coming = expect(100ms);
  const auto peer = connect();
  auto silent = coming.get();
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code, errc::deadline_exceeded);
}

TEST_F(receiver_test, destruction_cancels_what_waits_exactly_once) {
  auto coming = expect();
  receiver.reset();
  ASSERT_EQ(coming.wait_for(0ms), std::future_status::ready);
  EXPECT_EQ(coming.get().error().code, errc::cancelled);
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(receiver_test, a_path_too_long_for_a_socket_is_an_error) {
  socket = dir.path() / std::string(120, 'x');
  auto handover = expect().get();
  ASSERT_FALSE(handover);
  EXPECT_THAT(handover.error().context, HasSubstr("107 bytes"));
}

}  // namespace
}  // namespace coppice
