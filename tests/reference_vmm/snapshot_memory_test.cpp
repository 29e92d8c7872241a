#include "reference_vmm/snapshot_memory.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.hpp"
#include "base/guest_memory.hpp"
#include "base/units.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::reference {
namespace {

constexpr std::uint64_t memory_bytes = 16 * mib;

struct snapshot_memory : ::testing::Test {
  void SetUp() override {
    auto made = guest_ram::anonymous(memory_bytes);
    ASSERT_TRUE(made);
    ram.emplace(std::move(*made));
  }
  void fill(std::uint64_t page, std::uint8_t value) {
    const std::vector<std::byte> content(page_size, std::byte{value});
    ASSERT_TRUE(ram->write(page * page_size, content));
  }
  std::byte in_file(const std::filesystem::path& name, std::uint64_t page) {
    std::byte found{};
    auto file = open_file(name, O_RDONLY);
    EXPECT_TRUE(read_all_at(file->get(), {&found, 1}, page * page_size));
    return found;
  }
  std::uint64_t pages_on_disk(const std::filesystem::path& name) {
    struct stat info {};
    EXPECT_EQ(::stat(name.c_str(), &info), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), memory_bytes);
    return static_cast<std::uint64_t>(info.st_blocks) * 512 / page_size;
  }
  temp_dir dir;
  std::filesystem::path path = dir.path() / "memory.bin";
  std::optional<guest_ram> ram;
};

TEST_F(snapshot_memory, a_full_file_has_every_page_and_holes_where_memory_is_zero) {
  ASSERT_TRUE(write_text_file(path, std::string(2 * memory_bytes, 'x')));
  for (const std::uint64_t page : {0, 1, 700, 4095}) fill(page, static_cast<std::uint8_t>(page % 251 + 1));
  fill(100, 0);  // dirty, but zero
  const auto written = write_full_memory(path, *ram);
  ASSERT_TRUE(written) << written.error().message();
  EXPECT_EQ(in_file(path, 4095), std::byte{4095 % 251 + 1});
  EXPECT_EQ(in_file(path, 700), std::byte{700 % 251 + 1});
  EXPECT_EQ(in_file(path, 100), std::byte{0});
  EXPECT_LE(pages_on_disk(path), 8U);
  EXPECT_FALSE(ram->dirty().test(0)) << "the next Diff counts from here";
}

TEST_F(snapshot_memory, a_full_file_of_a_sparse_memfd_leaves_its_holes_unread) {
  auto memory = guest_memory::create("test", memory_bytes);
  ASSERT_TRUE(memory);
  auto shared = guest_ram::from_file("/proc/self/fd/" + std::to_string(memory->fd()), memory_bytes, true);
  ASSERT_TRUE(shared) << shared.error().message();
  memory->data()[9 * page_size] = std::byte{9};
  ASSERT_TRUE(write_full_memory(path, *shared));
  EXPECT_EQ(in_file(path, 9), std::byte{9});
  struct stat info {};
  ASSERT_EQ(::fstat(memory->fd(), &info), 0);
  EXPECT_EQ(info.st_blocks * 512, static_cast<blkcnt_t>(page_size)) << "reading holes of shared memory fills them";
}

TEST_F(snapshot_memory, a_diff_holds_the_dirty_pages_zero_ones_too_and_merges_into_a_file_of_the_right_size) {
  fill(3, 3);
  fill(4, 4);
  ASSERT_TRUE(write_full_memory(path, *ram));
  fill(4, 0);
  fill(5, 5);
  ASSERT_TRUE(write_dirty_memory(path, *ram));
  EXPECT_EQ(in_file(path, 3), std::byte{3}) << "clean: as it was";
  EXPECT_EQ(in_file(path, 4), std::byte{0});
  EXPECT_EQ(in_file(path, 5), std::byte{5});
  EXPECT_FALSE(ram->dirty().test(5));

  fill(6, 6);
  const auto other = dir.path() / "diff.bin";
  ASSERT_TRUE(write_text_file(other, "of another size"));
  ASSERT_TRUE(write_dirty_memory(other, *ram));
  EXPECT_EQ(in_file(other, 0), std::byte{0}) << "emptied first";
  EXPECT_EQ(in_file(other, 6), std::byte{6});
  EXPECT_EQ(pages_on_disk(other), 1U);
}

TEST_F(snapshot_memory, after_a_failure_the_dirty_pages_are_still_dirty) {
  fill(7, 7);
  EXPECT_FALSE(write_dirty_memory(dir.path() / "none" / "diff.bin", *ram));
  EXPECT_FALSE(write_full_memory(dir.path() / "none" / "full.bin", *ram));
  EXPECT_TRUE(ram->dirty().test(7));
  ASSERT_TRUE(write_dirty_memory(path, *ram));
  EXPECT_EQ(in_file(path, 7), std::byte{7});
}

// Emptying the file would empty the guest (Firecracker takes the same care).
TEST_F(snapshot_memory, a_snapshot_into_the_file_the_guest_was_restored_from_loses_nothing) {
  fill(8, 8);
  fill(9, 9);
  ASSERT_TRUE(write_full_memory(path, *ram));
  for (const bool shared : {false, true}) {
    for (const auto write : {write_full_memory, write_dirty_memory}) {
      auto restored = guest_ram::from_file(path, memory_bytes, shared);
      ASSERT_TRUE(restored);
      ASSERT_TRUE(restored->write(9 * page_size, std::vector<std::byte>(page_size)));
      ASSERT_TRUE(restored->write(10 * page_size, std::vector<std::byte>(page_size, std::byte{10})));
      const auto written = write(path, *restored);
      ASSERT_TRUE(written) << written.error().message();
      EXPECT_EQ(restored->at(8 * page_size, 1)[0], std::byte{8}) << shared;
      EXPECT_EQ(in_file(path, 8), std::byte{8}) << shared;
      EXPECT_EQ(in_file(path, 9), std::byte{0}) << shared;
      EXPECT_EQ(in_file(path, 10), std::byte{10}) << shared;
    }
  }
  ASSERT_EQ(::truncate(path.c_str(), 2 * memory_bytes), 0);
  auto restored = guest_ram::from_file(path, memory_bytes, false);
  ASSERT_TRUE(write_full_memory(path, *restored)) << "of another size";
  EXPECT_EQ(restored->at(8 * page_size, 1)[0], std::byte{8});
  pages_on_disk(path);
}

}  // namespace
}  // namespace coppice::reference
