#include <gmock/gmock.h>

#include <random>

#include "base/data_extents.hpp"
#include "tests/store/store_fixture.hpp"

namespace coppice {
namespace {

constexpr std::uint64_t pages = image_bytes / page_size;

class compose_diff : public testing::Test {
 protected:
  void SetUp() override {
    for (auto* file : {&base_, &diff_, &output_}) {
      auto fd = open_file(folder_.path() / std::to_string(++files_), O_RDWR | O_CREAT);
      ASSERT_TRUE(fd.ok());
      *file = std::move(*fd);
      ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>(image_bytes)), 0);
    }
  }
  static void put(const unique_fd& file, std::uint64_t page, char content) {
    const std::string text(page_size, content);
    ASSERT_TRUE(write_all_at(file.get(), std::as_bytes(std::span(text)), page * page_size).ok());
  }
  std::string compose() {
    const auto composed = compose_diff_image(base_.get(), diff_.get(), output_.get(), image_bytes);
    EXPECT_TRUE(composed.ok()) << composed.error().message();
    std::string image(image_bytes, '?');
    EXPECT_TRUE(read_all_at(output_.get(), std::as_writable_bytes(std::span(image)), 0).ok());
    return image;
  }
  std::uint64_t data_pages() {
    std::uint64_t total = 0;
    const auto parts = data_extents(output_.get(), image_bytes);
    for (const extent& part : *parts) total += part.size / page_size;
    return total;
  }

  temp_dir folder_;
  int files_ = 0;
  unique_fd base_, diff_, output_;
};

TEST_F(compose_diff, pages_of_the_diff_win_and_the_others_stay) {
  put(base_, 3, 'b');
  put(base_, 4, 'b');
  put(diff_, 4, 'd');
  put(diff_, 5, 'd');
  const auto image = compose();
  EXPECT_EQ(image[3 * page_size], 'b');
  EXPECT_EQ(image[4 * page_size], 'd');
  EXPECT_EQ(image[5 * page_size], 'd');
  EXPECT_EQ(image[6 * page_size], '\0');
  EXPECT_EQ(data_pages(), 3U) << "sparse where both are holes";
}

TEST_F(compose_diff, a_zero_page_of_the_diff_hides_the_base_and_becomes_a_hole) {
  put(base_, 3, 'b');
  put(diff_, 3, '\0');
  put(base_, 9, '\0');
  const auto image = compose();
  EXPECT_EQ(image, std::string(image_bytes, '\0'));
  EXPECT_EQ(data_pages(), 0U);
}

TEST_F(compose_diff, random_images_come_out_as_a_model_says) {
  std::mt19937 random(7);
  std::string model(image_bytes, '\0');
  for (const auto* file : {&base_, &diff_}) {
    for (std::uint64_t page = 0; page < pages; ++page) {
      if (random() % 3 != 0) continue;
      const char content = random() % 4 == 0 ? '\0' : static_cast<char>('a' + random() % 26);
      put(*file, page, content);
      model.replace(page * page_size, page_size, page_size, content);
    }
  }
  EXPECT_EQ(compose(), model);
}

TEST_F(compose_diff, a_base_that_is_all_data_is_copied_around_the_diff) {
  for (std::uint64_t page = 0; page < pages; ++page) put(base_, page, 'b');
  put(diff_, 0, 'd');
  put(diff_, pages - 1, 'd');
  std::string model(image_bytes, 'b');
  model.replace(0, page_size, page_size, 'd');
  model.replace((pages - 1) * page_size, page_size, page_size, 'd');
  EXPECT_EQ(compose(), model);
}

TEST_F(compose_diff, an_output_that_holds_data_already_is_refused) {
  put(output_, 1, 'x');
  EXPECT_EQ(compose_diff_image(base_.get(), diff_.get(), output_.get(), image_bytes).error().code, errc::io);
}

TEST_F(compose_diff, a_diff_whose_holes_are_coarser_than_a_page_is_refused) {
  const small_disk huge("size=16m,huge=always");
  if (!huge.mounted()) GTEST_SKIP() << "can't mount a tmpfs of huge pages here";
  auto diff = open_file(huge.path() / "diff", O_RDWR | O_CREAT);
  ASSERT_TRUE(diff.ok());
  ASSERT_EQ(::ftruncate(diff->get(), static_cast<off_t>(image_bytes)), 0);
  const auto composed = compose_diff_image(base_.get(), diff->get(), output_.get(), image_bytes);
  ASSERT_FALSE(composed.ok());
  EXPECT_THAT(composed.error().message(), testing::HasSubstr("larger than a page"));
}

}  // namespace
}  // namespace coppice
