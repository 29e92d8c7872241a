#include "vmm/memory_image.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <iostream>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

struct image_test : testing::Test {
  unique_fd make_image(std::uint64_t size) {
    auto fd = open_file(dir.path() / "image", O_RDWR | O_CREAT | O_TRUNC);
    EXPECT_TRUE(fd);
    EXPECT_EQ(::ftruncate(fd->get(), static_cast<off_t>(size)), 0);
    return std::move(*fd);
  }
  void fill(int fd, std::uint64_t offset, std::size_t size, unsigned char value) {
    const std::vector<std::byte> data(size, std::byte{value});
    ASSERT_TRUE(write_all_at(fd, data, offset));
  }
  temp_dir dir;
};

TEST_F(image_test, data_arrives_where_it_belongs_and_holes_stay_holes) {
  constexpr auto size = 64 * mib;
  const auto image = make_image(size);
  fill(image.get(), 0, page_size, 1);
  fill(image.get(), 16 * mib, 9 * mib, 2);  // more than one piece
  fill(image.get(), size - page_size, page_size, 3);
  auto memory = std::move(guest_memory::create("image-test", size)).value();
  const auto loaded = load_image(image.get(), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  struct stat status {};
  ASSERT_EQ(::fstat(memory.fd(), &status), 0);
  EXPECT_LE(static_cast<std::uint64_t>(status.st_blocks) * 512, 9 * mib + 2 * page_size + 2 * mib);
  std::vector<std::byte> expected(size);
  ASSERT_TRUE(read_all_at(image.get(), expected, 0));
  EXPECT_EQ(std::memcmp(memory.data(), expected.data(), size), 0);
}

TEST_F(image_test, a_process_puts_data_where_it_belongs_and_leaves_holes) {
  constexpr auto size = 64 * mib;
  const auto image = make_image(size);
  fill(image.get(), 0, page_size, 1);
  fill(image.get(), 16 * mib, 9 * mib, 2);
  auto memory = std::move(guest_memory::create("image-test", size)).value();
  const auto log = dir.path() / "log";
  const auto loaded = load_image_by_process(-1, dir.path() / "image", memory, log);
  ASSERT_TRUE(loaded) << loaded.error().message() << read_text_file(log).value();
  struct stat status {};
  ASSERT_EQ(::fstat(memory.fd(), &status), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(status.st_size), size);
  EXPECT_LE(static_cast<std::uint64_t>(status.st_blocks) * 512, 9 * mib + 64 * kib + 2 * mib);
  std::vector<std::byte> expected(size);
  ASSERT_TRUE(read_all_at(image.get(), expected, 0));
  EXPECT_EQ(std::memcmp(memory.data(), expected.data(), size), 0);
}

TEST_F(image_test, zero_pages_of_the_image_become_holes) {
  constexpr auto size = 32 * mib;
  const auto image = make_image(size);
  fill(image.get(), 0, size, 0);
  fill(image.get(), 5 * page_size, page_size, 1);
  fill(image.get(), 7 * page_size, 2 * page_size, 2);
  auto memory = std::move(guest_memory::create("image-test", size)).value();
  ASSERT_TRUE(load_image(image.get(), memory));
  struct stat status {};
  ASSERT_EQ(::fstat(memory.fd(), &status), 0);
  EXPECT_LE(static_cast<std::uint64_t>(status.st_blocks) * 512, 4 * mib);
  std::vector<std::byte> expected(size);
  ASSERT_TRUE(read_all_at(image.get(), expected, 0));
  EXPECT_EQ(std::memcmp(memory.data(), expected.data(), size), 0);
}

TEST_F(image_test, an_image_of_another_size_is_refused) {
  const auto image = make_image(2 * mib);
  auto memory = std::move(guest_memory::create("image-test", 4 * mib)).value();
  const auto loaded = load_image(image.get(), memory);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, errc::corrupt);
}

TEST_F(image_test, an_image_that_cannot_be_read_is_an_error) {
  make_image(2 * mib);
  const unique_fd write_only(::open((dir.path() / "image").c_str(), O_WRONLY | O_CLOEXEC));
  fill(write_only.get(), 0, page_size, 1);
  auto memory = std::move(guest_memory::create("image-test", 2 * mib)).value();
  EXPECT_FALSE(load_image(write_only.get(), memory));
}

}  // namespace
}  // namespace coppice
