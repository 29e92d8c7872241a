#include "base/free_page_reporting.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

class free_page_reporting : public ::testing::Test {
 protected:
  void set_order(const std::string& order) { write("module/page_reporting/parameters/page_reporting_order", order); }
  void add_balloon(const std::string& features) {
    write("bus/virtio/drivers/virtio_balloon/virtio0/features", features);
    write("bus/virtio/drivers/virtio_balloon/unbind", "");
  }
  std::optional<unsigned> order() const { return free_page_reporting_order(sysfs_.path()); }

 private:
  void write(const std::string& name, const std::string& text) {
    const auto path = sysfs_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << '\n';
  }
  temp_dir sysfs_;
};

TEST_F(free_page_reporting, is_told_of_a_balloon_that_has_the_feature) {
  set_order("9");
  add_balloon("0110010100");
  EXPECT_EQ(order(), 9U);
}

TEST_F(free_page_reporting, is_off_without_a_balloon_or_its_feature) {
  EXPECT_EQ(order(), std::nullopt) << "no such kernel";
  set_order("9");
  EXPECT_EQ(order(), std::nullopt) << "no balloon";
  add_balloon("0110000100");
  EXPECT_EQ(order(), std::nullopt) << "a balloon without the feature";
  add_balloon("");
  EXPECT_EQ(order(), std::nullopt) << "a balloon that tells nothing";
}

TEST_F(free_page_reporting, is_off_where_no_block_is_large_enough) {
  add_balloon("0110010100");
  set_order("10");
  EXPECT_EQ(order(), 10U);
  set_order("11");
  EXPECT_EQ(order(), std::nullopt);
  set_order("4294967295");  // the kernel's "not decided yet"
  EXPECT_EQ(order(), std::nullopt);
}

}  // namespace
}  // namespace coppice
