#include "reference_vmm/memory.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::reference {
namespace {

constexpr std::uint64_t gib = 1024 * mib;

std::vector<std::byte> bytes(std::size_t size, std::uint8_t value) {
  return {size, std::byte{value}};
}

TEST(region_layout, memory_up_to_the_gap_is_one_region_and_the_rest_begins_at_4_gib) {
  const struct {
    std::uint64_t size;
    std::size_t regions;
    std::uint64_t low, high;
  } cases[] = {
      {8 * mib, 1, 8 * mib, 0},
      {mmio_gap_start - mib, 1, mmio_gap_start - mib, 0},
      {mmio_gap_start, 1, mmio_gap_start, 0},
      {mmio_gap_start + mib, 2, mmio_gap_start, mib},
      {4 * gib, 2, mmio_gap_start, 4 * gib - mmio_gap_start},
      {6 * gib, 2, mmio_gap_start, 6 * gib - mmio_gap_start},
  };
  for (const auto& each : cases) {
    const auto regions = region_layout(each.size);
    ASSERT_EQ(regions.size(), each.regions) << each.size;
    EXPECT_EQ(regions[0].guest_address, 0U);
    EXPECT_EQ(regions[0].file_offset, 0U);
    EXPECT_EQ(regions[0].bytes.size(), each.low) << each.size;
    if (each.regions == 1) continue;
    EXPECT_EQ(regions[1].guest_address, mmio_gap_end);
    EXPECT_EQ(regions[1].file_offset, mmio_gap_start) << "no hole in the memory file";
    EXPECT_EQ(regions[1].bytes.size(), each.high) << each.size;
  }
}

TEST(dirty_bitmap, each_page_has_a_bit_of_its_own) {
  dirty_bitmap bitmap(130);
  for (const std::uint64_t page : {0, 63, 64, 129}) bitmap.set(page);
  for (std::uint64_t page = 0; page < 130; ++page) {
    EXPECT_EQ(bitmap.test(page), page == 0 || page == 63 || page == 64 || page == 129) << page;
  }
  bitmap.clear();
  for (std::uint64_t page = 0; page < 130; ++page) EXPECT_FALSE(bitmap.test(page)) << page;
}

TEST(dirty_bitmap, threads_that_set_bits_of_one_word_lose_none) {
  dirty_bitmap bitmap(64);
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&bitmap, t] {
      for (std::uint64_t page = t; page < 64; page += 4) bitmap.set(page);
    });
  }
  for (auto& each : threads) each.join();
  for (std::uint64_t page = 0; page < 64; ++page) EXPECT_TRUE(bitmap.test(page)) << page;
}

TEST(guest_ram, addresses_are_found_in_their_region_and_never_across_the_gap) {
  auto ram = guest_ram::anonymous(4 * gib);
  ASSERT_TRUE(ram) << ram.error().message();
  EXPECT_EQ(ram->at(0, page_size).data(), ram->regions()[0].bytes.data());
  EXPECT_EQ(ram->at(mmio_gap_end, page_size).data(), ram->regions()[1].bytes.data());
  EXPECT_EQ(ram->at(0, mmio_gap_start).size(), mmio_gap_start);
  EXPECT_TRUE(ram->at(0, mmio_gap_start + 1).empty());
  EXPECT_TRUE(ram->at(mmio_gap_start, 1).empty());
  EXPECT_TRUE(ram->at(mmio_gap_start - 1, 2).empty());
  EXPECT_TRUE(ram->at(mmio_gap_end - 1, 1).empty());
  const std::uint64_t end = mmio_gap_end + 4 * gib - mmio_gap_start;
  EXPECT_EQ(ram->at(end - 1, 1).size(), 1U);
  EXPECT_TRUE(ram->at(end - 1, 2).empty());
  EXPECT_TRUE(ram->at(page_size, ~0ULL).empty()) << "a length that overflows";
  EXPECT_TRUE(ram->at(~0ULL, 1).empty());
}

TEST(guest_ram, what_the_vmm_writes_is_there_and_dirty_at_its_place_in_the_file) {
  auto ram = guest_ram::anonymous(4 * gib);
  ASSERT_TRUE(ram);
  ASSERT_TRUE(ram->write(page_size - 1, bytes(2, 1)));
  ASSERT_TRUE(ram->write(mmio_gap_end + page_size, bytes(page_size, 2)));
  EXPECT_EQ(ram->at(page_size, 1)[0], std::byte{1});
  EXPECT_TRUE(ram->dirty().test(0));
  EXPECT_TRUE(ram->dirty().test(1));
  EXPECT_FALSE(ram->dirty().test(2));
  const std::uint64_t high = mmio_gap_start / page_size;
  EXPECT_FALSE(ram->dirty().test(high));
  EXPECT_TRUE(ram->dirty().test(high + 1));
  EXPECT_FALSE(ram->dirty().test(high + 2));
  EXPECT_TRUE(ram->write(mmio_gap_start, {})) << "nothing, nowhere";
  const auto outside = ram->write(mmio_gap_start - 1, bytes(2, 1));
  ASSERT_FALSE(outside);
  EXPECT_EQ(outside.error().code, errc::invalid_argument);
}

// A file of 16 pages, each full of its number.
struct guest_ram_file : ::testing::Test {
  guest_ram_file() {
    auto file = open_file(path, O_CREAT | O_RDWR);
    for (std::uint8_t page = 0; page < 16; ++page) {
      EXPECT_TRUE(write_all_at(file->get(), bytes(page_size, page), page * page_size));
    }
  }
  std::byte in_file(std::uint64_t offset) {
    std::byte found{};
    auto file = open_file(path, O_RDONLY);
    EXPECT_TRUE(read_all_at(file->get(), {&found, 1}, offset));
    return found;
  }
  temp_dir dir;
  std::filesystem::path path = dir.path() / "memory";
};

TEST_F(guest_ram_file, private_memory_begins_as_the_file_and_never_changes_it) {
  auto ram = guest_ram::from_file(path, 16 * page_size, false);
  ASSERT_TRUE(ram) << ram.error().message();
  EXPECT_EQ(ram->at(5 * page_size, 1)[0], std::byte{5});
  EXPECT_EQ(ram->shared_fd(), -1);
  ASSERT_TRUE(ram->write(5 * page_size, bytes(1, 99)));
  EXPECT_EQ(ram->at(5 * page_size, 1)[0], std::byte{99});
  EXPECT_EQ(in_file(5 * page_size), std::byte{5});
}

TEST_F(guest_ram_file, shared_memory_is_the_file) {
  auto ram = guest_ram::from_file(path, 16 * page_size, true);
  ASSERT_TRUE(ram) << ram.error().message();
  EXPECT_GE(ram->shared_fd(), 0);
  ASSERT_TRUE(ram->write(5 * page_size, bytes(1, 99)));
  EXPECT_EQ(in_file(5 * page_size), std::byte{99});
}

TEST_F(guest_ram_file, memory_survives_a_move) {
  auto first = guest_ram::from_file(path, 16 * page_size, false);
  ASSERT_TRUE(first);
  guest_ram second(std::move(*first));
  EXPECT_EQ(second.at(15 * page_size, 1)[0], std::byte{15});
  EXPECT_EQ(second.size(), 16 * page_size);
}

TEST_F(guest_ram_file, a_file_that_is_absent_or_too_short_is_refused) {
  EXPECT_EQ(guest_ram::from_file(dir.path() / "none", page_size, false).error().code, errc::not_found);
  for (const bool shared : {false, true}) {
    const auto too_short = guest_ram::from_file(path, 17 * page_size, shared);
    ASSERT_FALSE(too_short);
    EXPECT_EQ(too_short.error().code, errc::invalid_argument);
  }
}

}  // namespace
}  // namespace coppice::reference
