#include "vmm/network_namespace.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/process.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;

// Of a descriptor of a namespace; "net:[4026531840]".
std::string name_of(int fd) {
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)).string();
}

class network_namespace_test : public testing::Test {
 protected:
  void SetUp() override {
    auto made = network_namespace::create();
    if (!made && made.error().code == errc::unsupported) GTEST_SKIP() << made.error().message();
    ASSERT_TRUE(made) << made.error().message();
    inside_.emplace(*std::move(made));
  }
  // The flags of an interface inside; 0 if there is none.
  unsigned flags_of(const char* interface) const {
    auto socket = inside_->tcp_socket();
    ifreq request{};
    std::strncpy(request.ifr_name, interface, sizeof request.ifr_name - 1);
    return socket && ::ioctl(socket->get(), SIOCGIFFLAGS, &request) == 0 ? static_cast<unsigned>(request.ifr_flags) : 0;
  }

  std::optional<network_namespace> inside_;
};

TEST_F(network_namespace_test, is_another_one_than_ours_with_lo_and_the_tap_up) {
  const auto ours = std::filesystem::read_symlink("/proc/thread-self/ns/net").string();
  EXPECT_NE(name_of(inside_->fd()), ours);
  EXPECT_TRUE(flags_of("lo") & IFF_UP);
  EXPECT_TRUE(flags_of(guest_tap) & IFF_UP);
  EXPECT_EQ(flags_of("eth0"), 0U);
  EXPECT_EQ(std::filesystem::read_symlink("/proc/thread-self/ns/net").string(), ours) << "this thread stayed outside";
}

TEST_F(network_namespace_test, the_tap_has_the_address_of_the_host_and_each_namespace_its_own_tap) {
  auto other = network_namespace::create();
  ASSERT_TRUE(other) << other.error().message();
  for (auto* each : {&inside_.value(), &other.value()}) {
    auto socket = each->tcp_socket();
    ASSERT_TRUE(socket) << socket.error().message();
    sockaddr_in address{};
    address.sin_family = AF_INET;
    ::inet_pton(AF_INET, host_side_ip, &address.sin_addr);
    EXPECT_EQ(::bind(socket->get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << std::strerror(errno);
  }
}

TEST_F(network_namespace_test, a_process_runs_inside_and_our_own_namespace_is_not_its) {
  const temp_dir dir;
  auto child = spawn_process({VMM_TEST_CHILD, {"report"}, dir.path() / "log", inside_->fd()});
  ASSERT_TRUE(child) << child.error().message();
  const auto ended = child->wait(30s);
  ASSERT_TRUE(ended && *ended);
  EXPECT_THAT(read_text_file(dir.path() / "log").value(), testing::HasSubstr("network " + name_of(inside_->fd())));
}

TEST_F(network_namespace_test, leaves_no_descriptor_and_no_name) {
  const auto name = name_of(inside_->fd());
  inside_.reset();
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the listing's own descriptor
    EXPECT_NE(std::filesystem::read_symlink(entry.path(), gone).string(), name);
  }
  EXPECT_EQ(read_text_file("/proc/self/mountinfo").value().find(name), std::string::npos);
}

}  // namespace
}  // namespace coppice
