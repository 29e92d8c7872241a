#include "reference_vmm/state_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::reference {
namespace {

using ::testing::HasSubstr;

struct state_file : ::testing::Test {
  state_file() {
    sections.set_struct("config", std::uint64_t{7});
    sections.set("vcpu0.msrs", std::vector<std::byte>(1000, std::byte{0x5a}));
    sections.set("empty", {});
  }
  std::string written() {
    EXPECT_TRUE(write_state_file(path, sections));
    return *read_text_file(path);
  }
  error refusal_of(const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;  // thousands of times: not made durable
    const auto read = read_state_file(path);
    EXPECT_FALSE(read);
    return read ? error{} : read.error();
  }
  temp_dir dir;
  std::filesystem::path path = dir.path() / "vmstate";
  state_sections sections;
};

TEST_F(state_file, sections_come_back_as_they_were) {
  written();
  const auto read = read_state_file(path);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->all(), sections.all());
  EXPECT_EQ(*read->get_struct<std::uint64_t>("config"), 7U);
}

TEST_F(state_file, a_longer_file_of_before_is_replaced_whole) {
  ASSERT_TRUE(write_text_file(path, std::string(100'000, 'x')));
  EXPECT_LT(written().size(), 2'000U);
  EXPECT_TRUE(read_state_file(path));
}

TEST_F(state_file, a_section_that_is_absent_or_of_another_size_is_named) {
  const auto absent = sections.get_struct<int>("pit");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, errc::corrupt);
  EXPECT_THAT(absent.error().message(), HasSubstr("pit"));
  EXPECT_FALSE(sections.get_struct<std::uint32_t>("config"));
}

TEST_F(state_file, each_byte_counts) {
  const std::string whole = written();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    const error refused = refusal_of(damaged);
    ASSERT_EQ(refused.code, errc::corrupt) << "byte " << at;
    ASSERT_THAT(refused.message(), HasSubstr("damaged vmstate")) << "byte " << at;
  }
}

TEST_F(state_file, a_file_cut_short_anywhere_is_damaged_and_so_is_one_that_goes_on) {
  const std::string whole = written();
  for (std::size_t size = 0; size < whole.size(); size += 13) {
    ASSERT_EQ(refusal_of(whole.substr(0, size)).code, errc::corrupt) << size;
  }
  EXPECT_EQ(refusal_of(whole + "x").code, errc::corrupt);
}

TEST_F(state_file, another_version_and_another_format_are_said) {
  std::string other = written();
  other[8] = 2;
  EXPECT_THAT(refusal_of(other).message(), HasSubstr("version 2"));
  EXPECT_THAT(refusal_of(std::string(4096, '\0')).message(), HasSubstr("not a vmstate of coppice-vmm"));
}

TEST_F(state_file, files_that_cannot_be_opened_are_errors) {
  EXPECT_EQ(read_state_file(dir.path() / "none").error().code, errc::not_found);
  EXPECT_EQ(write_state_file(dir.path() / "none" / "vmstate", sections).error().code, errc::not_found);
  EXPECT_FALSE(read_state_file(dir.path()));
}

}  // namespace
}  // namespace coppice::reference
