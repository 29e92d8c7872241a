#include "base/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>

#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

TEST(file, text_is_replaced_whole) {
  const temp_dir folder;
  ASSERT_TRUE(write_text_file(folder.path() / "f", "a longer text").ok());
  ASSERT_TRUE(write_text_file(folder.path() / "f", "short").ok());
  EXPECT_EQ(*read_text_file(folder.path() / "f"), "short");
}

TEST(file, a_missing_file_is_named) {
  const auto text = read_text_file("/nonexistent/file");
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code, errc::not_found);
  EXPECT_NE(text.error().message().find("/nonexistent/file"), std::string::npos);
}

TEST(file, the_end_of_a_file_is_read_without_the_rest) {
  const temp_dir folder;
  ASSERT_TRUE(write_text_file(folder.path() / "f", "0123456789").ok());
  EXPECT_EQ(*read_file_end(folder.path() / "f", 4), "6789");
  EXPECT_EQ(*read_file_end(folder.path() / "f", 40), "0123456789");
  ASSERT_TRUE(write_text_file(folder.path() / "f", "").ok());
  EXPECT_EQ(*read_file_end(folder.path() / "f", 4), "");
  EXPECT_EQ(read_file_end(folder.path() / "none", 4).error().code, errc::not_found);
}

TEST(file, a_full_device_is_no_space) {
  auto full = open_file("/dev/full", O_WRONLY);
  ASSERT_TRUE(full.ok());
  const std::array<std::byte, 8> data{};
  const auto written = write_all_at(full->get(), data, 0);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, errc::no_space);
}

TEST(file, reading_past_the_end_is_corrupt) {
  const temp_dir folder;
  ASSERT_TRUE(write_text_file(folder.path() / "f", "abc").ok());
  auto fd = open_file(folder.path() / "f", O_RDONLY);
  std::array<std::byte, 8> data{};
  EXPECT_EQ(read_all_at(fd->get(), data, 0).error().code, errc::corrupt);
}

}  // namespace
}  // namespace coppice
