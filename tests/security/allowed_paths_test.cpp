// Kernels and drives that a request names stay in the folders that were allowed.
#include "api/allowed_paths.hpp"

#include <gmock/gmock.h>

#include <fstream>

#include "api/server.hpp"
#include "client/client.hpp"
#include "tests/api/fake_control_plane.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class allowed_folder : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(allowed_ / "sub");
    fs::create_directories(root_.path() / "images-of-others");
    for (const fs::path& file : {allowed_ / "kernel", allowed_ / "sub" / "kernel", root_.path() / "secret",
                                 root_.path() / "images-of-others" / "kernel"}) {
      std::ofstream(file) << "x";
    }
    fs::create_symlink(root_.path() / "secret", allowed_ / "link");
    fs::create_symlink(root_.path(), allowed_ / "up");
    fs::create_symlink("kernel", allowed_ / "latest");
  }

  temp_dir root_;
  const fs::path allowed_ = root_.path() / "images";
  const std::vector<fs::path> escapes_ = {root_.path() / "secret",
                                          allowed_ / ".." / "secret",
                                          allowed_ / "sub" / ".." / ".." / "secret",
                                          allowed_ / "link",
                                          allowed_ / "up" / "secret",
                                          root_.path() / "images-of-others" / "kernel",
                                          root_.path() / "no-such-file",
                                          allowed_ / "no-such-file",
                                          "/proc/self/root/etc/passwd",
                                          "/etc/passwd"};
};

TEST_F(allowed_folder, holds_what_is_below_it_with_links_resolved) {
  const auto paths = *allowed_paths::below({allowed_});
  EXPECT_EQ(*paths.resolve(allowed_ / "kernel"), fs::canonical(allowed_ / "kernel"));
  EXPECT_EQ(*paths.resolve(allowed_ / "sub" / ".." / "latest"), fs::canonical(allowed_ / "kernel"));
}

TEST_F(allowed_folder, may_itself_be_reached_by_a_link) {
  fs::create_symlink(allowed_, root_.path() / "current");
  const auto paths = *allowed_paths::below({root_.path() / "current"});
  EXPECT_TRUE(paths.resolve(root_.path() / "current" / "kernel").ok());
  EXPECT_TRUE(paths.resolve(allowed_ / "kernel").ok());
}

TEST_F(allowed_folder, is_not_left_by_dots_links_or_a_similar_name_and_does_not_tell_what_is_outside) {
  const auto paths = *allowed_paths::below({allowed_});
  for (const fs::path& escape : escapes_) {
    const auto resolved = paths.resolve(escape);
    ASSERT_FALSE(resolved.ok()) << escape;
    EXPECT_EQ(resolved.error().message(), escape.string() + paths.resolve("/x").error().message().substr(2));
  }
}

TEST_F(allowed_folder, must_exist_and_none_allows_nothing) {
  EXPECT_FALSE(allowed_paths::below({root_.path() / "none"}).ok());
  EXPECT_FALSE(allowed_paths::below({root_.path() / "secret"}).ok());
  EXPECT_FALSE(allowed_paths::below({})->resolve(allowed_ / "kernel").ok());
  EXPECT_EQ(*allowed_paths().resolve("/any/thing"), "/any/thing");
}

TEST_F(allowed_folder, holds_for_the_kernel_and_the_rootfs_of_a_request) {
  fake_control_plane plane;
  api_server_options options;
  options.paths = *allowed_paths::below({allowed_});
  const auto api = *api_server::start("127.0.0.1", 0, plane, std::move(options));
  const auto client = *api_client::create("127.0.0.1:" + std::to_string(api->port()));
  const auto create = [&](const fs::path& kernel, const fs::path& rootfs) {
    return client.send("POST", "/v1/snapshots",
                       nlohmann::json{{"tag", "a"}, {"kernel", kernel.string()}, {"rootfs", rootfs.string()}}.dump());
  };
  for (const fs::path& escape : escapes_) {
    for (const auto& answer : {create(escape, allowed_ / "kernel"), create(allowed_ / "kernel", escape)}) {
      ASSERT_TRUE(answer.ok());
      EXPECT_EQ(answer->status, 400u) << escape;
      EXPECT_THAT(answer->body, HasSubstr("--allow-path"));
    }
  }
  EXPECT_FALSE(plane.created_snapshot);
  EXPECT_EQ(create(allowed_ / "latest", allowed_ / "sub" / "kernel")->status, 201u);
  EXPECT_EQ(plane.created_snapshot->kernel, fs::canonical(allowed_ / "kernel")) << "the file that was checked is used";
}

}  // namespace
}  // namespace coppice
