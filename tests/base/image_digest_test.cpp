#include "base/image_digest.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <array>

#include "base/data_extents.hpp"
#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using testing::ElementsAre;

using page = std::vector<std::byte>;

page page_of(unsigned char content) {
  return page(page_size, std::byte{content});
}

// A file of `size` bytes, all hole but for the pages given.
unique_fd sparse_file(const temp_dir& folder, std::uint64_t size,
                      const std::vector<std::pair<std::uint64_t, page>>& data) {
  auto fd = open_file(folder.path() / "image", O_RDWR | O_CREAT | O_TRUNC);
  EXPECT_EQ(::ftruncate(fd->get(), static_cast<off_t>(size)), 0);
  for (const auto& [index, content] : data) {
    EXPECT_TRUE(write_all_at(fd->get(), content, index * page_size).ok());
  }
  return std::move(*fd);
}

TEST(image_digest, the_zero_page_digest_is_that_of_a_page_of_zeros) {
  EXPECT_EQ(zero_page_digest(), page_digest(page_of(0)));
  EXPECT_NE(zero_page_digest(), page_digest(page_of(1)));
}

TEST(image_digest, a_single_set_bit_anywhere_makes_a_page_not_zero) {
  auto content = page_of(0);
  EXPECT_TRUE(is_zero_page(content));
  for (std::size_t at = 0; at < page_size; ++at) {
    content[at] = std::byte{0x80};
    ASSERT_FALSE(is_zero_page(content)) << "byte " << at;
    content[at] = std::byte{0};
  }
}

TEST(image_digest, a_repeated_first_word_is_not_zero) {
  EXPECT_FALSE(is_zero_page(page_of(0x11)));
}

TEST(image_digest, there_is_one_checksum_a_chunk_and_the_last_may_be_short) {
  std::vector<std::uint64_t> digests(2 * pages_per_chunk + 1, 5);
  const auto checksums = chunk_checksums(digests);
  ASSERT_EQ(checksums.size(), 3U);
  EXPECT_EQ(checksums[0], checksums[1]);
  EXPECT_NE(checksums[1], checksums[2]);
  EXPECT_TRUE(chunk_checksums({}).empty());
}

TEST(image_digest, a_page_changes_its_own_chunks_checksum_only) {
  std::vector<std::uint64_t> digests(3 * pages_per_chunk, 5);
  const auto before = chunk_checksums(digests);
  digests[pages_per_chunk] = 6;
  const auto after = chunk_checksums(digests);
  EXPECT_EQ(before[0], after[0]);
  EXPECT_NE(before[1], after[1]);
  EXPECT_EQ(before[2], after[2]);
  EXPECT_NE(image_checksum(before), image_checksum(after));
}

TEST(image_digest, exchanged_pages_change_the_checksum) {
  std::vector<std::uint64_t> digests(pages_per_chunk, 5);
  digests[0] = 1;
  const auto before = chunk_checksums(digests);
  std::swap(digests[0], digests[1]);
  EXPECT_NE(chunk_checksums(digests), before);
}

TEST(image_digest, a_file_has_the_checksums_of_its_pages_and_holes_count_as_zeros) {
  const temp_dir folder;
  const std::uint64_t size = chunk_size + 3 * page_size;
  const auto file = sparse_file(folder, size, {{1, page_of(7)}, {2, page_of(8)}, {pages_per_chunk + 2, page_of(9)}});
  std::vector<std::uint64_t> digests(size / page_size, zero_page_digest());
  digests[1] = page_digest(page_of(7));
  digests[2] = page_digest(page_of(8));
  digests[pages_per_chunk + 2] = page_digest(page_of(9));
  const auto checksums = checksum_image_file(file.get(), size);
  ASSERT_TRUE(checksums.ok());
  EXPECT_EQ(*checksums, chunk_checksums(digests));
}

TEST(image_digest, written_zeros_and_holes_have_the_same_checksum) {
  const temp_dir folder;
  const auto hole = sparse_file(folder, chunk_size, {});
  const auto of_hole = checksum_image_file(hole.get(), chunk_size);
  const auto zeros = sparse_file(folder, chunk_size, {{0, page_of(0)}, {100, page_of(0)}});
  EXPECT_EQ(*of_hole, *checksum_image_file(zeros.get(), chunk_size));
}

TEST(image_digest, a_file_that_is_too_short_is_corrupt_even_if_it_ends_in_a_hole) {
  const temp_dir folder;
  const auto file = sparse_file(folder, chunk_size, {});
  const auto checksums = checksum_image_file(file.get(), 2 * chunk_size);
  ASSERT_FALSE(checksums.ok());
  EXPECT_EQ(checksums.error().code, errc::corrupt);
}

TEST(image_digest, a_size_of_no_whole_number_of_pages_is_refused) {
  const temp_dir folder;
  const auto file = sparse_file(folder, 2 * page_size, {{0, page_of(1)}, {1, page_of(1)}});
  EXPECT_EQ(checksum_image_file(file.get(), page_size + 100).error().code, errc::invalid_argument);
}

// As numbers: first page and number of pages of each extent.
std::vector<std::pair<std::uint64_t, std::uint64_t>> extents_in_pages(const unique_fd& file, std::uint64_t size) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
  const auto parts = data_extents(file.get(), size);
  for (const extent& part : *parts) {
    EXPECT_EQ(part.offset % page_size, 0U);
    found.emplace_back(part.offset / page_size, part.size / page_size);
  }
  return found;
}

TEST(data_extents, are_ascending_and_leave_the_holes_out) {
  const temp_dir folder;
  const auto file = sparse_file(folder, 64 * page_size, {{3, page_of(1)}, {4, page_of(1)}, {40, page_of(1)}});
  EXPECT_THAT(extents_in_pages(file, 64 * page_size), ElementsAre(std::pair(3, 2), std::pair(40, 1)));
}

TEST(data_extents, a_file_that_is_all_hole_has_none) {
  const temp_dir folder;
  EXPECT_TRUE(extents_in_pages(sparse_file(folder, 64 * page_size, {}), 64 * page_size).empty());
}

TEST(data_extents, a_file_that_is_all_data_is_one_extent) {
  const temp_dir folder;
  const auto file = sparse_file(folder, 0, {{0, page_of(1)}, {1, page_of(1)}});
  EXPECT_THAT(extents_in_pages(file, 2 * page_size), ElementsAre(std::pair(0, 2)));
}

TEST(data_extents, what_lies_beyond_the_size_is_left_out) {
  const temp_dir folder;
  const auto file = sparse_file(folder, 64 * page_size, {{3, page_of(1)}, {4, page_of(1)}, {40, page_of(1)}});
  EXPECT_THAT(extents_in_pages(file, 4 * page_size), ElementsAre(std::pair(3, 1)));
  EXPECT_TRUE(extents_in_pages(file, 2 * page_size).empty());
  EXPECT_TRUE(extents_in_pages(file, 0).empty());
}

TEST(data_extents, part_of_a_page_counts_as_the_whole_page) {
  const temp_dir folder;
  auto fd = open_file(folder.path() / "image", O_RDWR | O_CREAT);
  ASSERT_EQ(::ftruncate(fd->get(), 8 * page_size), 0);
  ASSERT_TRUE(write_all_at(fd->get(), std::vector<std::byte>(10, std::byte{1}), 2 * page_size + 100).ok());
  EXPECT_THAT(extents_in_pages(*fd, 8 * page_size), ElementsAre(std::pair(2, 1)));
}

TEST(data_extents, something_that_has_no_extents_is_an_error) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const unique_fd reader(ends[0]);
  const unique_fd writer(ends[1]);
  const auto extents = data_extents(reader.get(), page_size);
  ASSERT_FALSE(extents.ok());
  EXPECT_EQ(extents.error().code, errc::io);
}

}  // namespace
}  // namespace coppice
