#include "reference_vmm/boot.hpp"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.hpp"
#include "base/units.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::reference {
namespace {

using ::testing::HasSubstr;

template <class T>
T read_at(guest_ram& ram, std::uint64_t address) {
  T value;
  std::memcpy(&value, ram.at(address, sizeof value).data(), sizeof value);
  return value;
}

struct boot : ::testing::Test {
  // An ELF64 file with one segment of 100 bytes at 1 MiB.
  std::string elf(const std::function<void(Elf64_Ehdr&, Elf64_Phdr&)>& change = nullptr) {
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof header;
    header.e_phnum = 1;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_entry = 0x100010;
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_offset = sizeof header + sizeof segment;
    segment.p_paddr = 0x100000;
    segment.p_filesz = 100;
    segment.p_memsz = 5000;
    if (change) change(header, segment);
    std::string file(reinterpret_cast<const char*>(&header), sizeof header);
    file.append(reinterpret_cast<const char*>(&segment), sizeof segment);
    return file + std::string(100, 'k');
  }
  result<std::uint64_t> load(const std::string& content, const std::string& arguments = "a=b",
                             std::uint64_t size = 64 * mib) {
    EXPECT_TRUE(write_text_file(kernel, content));
    ram.emplace(*guest_ram::anonymous(size));
    return load_guest(*ram, kernel, arguments, 3);
  }
  temp_dir dir;
  std::filesystem::path kernel = dir.path() / "kernel";
  std::optional<guest_ram> ram;
};

TEST_F(boot, kernel_command_line_and_tables_are_where_the_guest_looks_for_them) {
  const auto entry = load(elf());
  ASSERT_TRUE(entry) << entry.error().message();
  EXPECT_EQ(*entry, 0x100010U);
  EXPECT_EQ(read_at<char>(*ram, 0x100000 + 99), 'k');
  const std::uint64_t params = entry_registers(*entry).rsi;
  EXPECT_EQ(read_at<std::uint32_t>(*ram, params + 0x202), 0x53726448U);
  const auto command_line = read_at<std::uint32_t>(*ram, params + 0x228);
  EXPECT_STREQ(reinterpret_cast<const char*>(ram->at(command_line, 4).data()), "a=b");
  EXPECT_EQ(read_at<std::uint32_t>(*ram, 0x9fc00), 0x5f504d5fU) << "_MP_";
  EXPECT_EQ(read_at<std::uint64_t>(*ram, 0xb000 + 8 * 511) & ~0xfffULL, 511ULL << 21) << "identity mapping";
  const auto table = ram->at(0x9fc10, 44 + 3 * 20 + 26 * 8);
  unsigned sum = 0;
  for (const std::byte each : table) sum += std::to_integer<unsigned>(each);
  EXPECT_EQ(sum & 0xff, 0U) << "the MP table's checksum";
}

TEST_F(boot, the_memory_map_tells_both_regions_and_nothing_of_the_gap) {
  ASSERT_TRUE(load(elf(), "", 6144 * mib));
  ASSERT_EQ(read_at<std::uint8_t>(*ram, 0x7000 + 0x1e8), 4);
  const auto entry = [&](std::uint64_t i, std::uint64_t offset) {
    return read_at<std::uint64_t>(*ram, 0x7000 + 0x2d0 + 20 * i + offset);
  };
  EXPECT_EQ(entry(2, 0), 0x100000U);
  EXPECT_EQ(entry(2, 0) + entry(2, 8), mmio_gap_start);
  EXPECT_EQ(entry(3, 0), mmio_gap_end);
  EXPECT_EQ(entry(3, 8), 6144 * mib - mmio_gap_start);
}

TEST_F(boot, what_is_no_kernel_is_refused) {
  const auto code = [&](const std::string& content) { return load(content).error().code; };
  EXPECT_EQ(code(""), errc::corrupt);
  EXPECT_EQ(code("#!/bin/sh"), errc::corrupt);
  EXPECT_EQ(code(elf([](auto& header, auto&) { header.e_ident[EI_CLASS] = ELFCLASS32; })), errc::corrupt);
  EXPECT_EQ(code(elf([](auto& header, auto&) { header.e_machine = EM_AARCH64; })), errc::corrupt);
  EXPECT_EQ(code(elf([](auto& header, auto&) { header.e_phnum = 1000; })), errc::corrupt) << "beyond the end";
  EXPECT_EQ(code(elf([](auto&, auto& segment) { segment.p_paddr = 0x7000; })), errc::corrupt);
  EXPECT_EQ(code(elf([](auto&, auto& segment) { segment.p_filesz = 5001; })), errc::corrupt);
  EXPECT_EQ(code(elf([](auto&, auto& segment) { segment.p_offset = 1 << 20; })), errc::corrupt) << "cut short";
  EXPECT_EQ(code(elf([](auto&, auto& segment) { segment.p_memsz = 1ULL << 40; })), errc::invalid_argument);
  EXPECT_EQ(code(elf([](auto&, auto& segment) { segment.p_paddr = ~0ULL - 10; })), errc::invalid_argument);
  EXPECT_EQ(load_guest(*ram, dir.path() / "none", "", 1).error().code, errc::not_found);
}

TEST_F(boot, an_initrd_lies_at_the_end_of_low_memory_and_boot_params_name_it) {
  const auto initrd = dir.path() / "initrd";
  for (const std::uint64_t size : {64 * mib, 6144 * mib}) {
    ASSERT_TRUE(load(elf(), "", size));
    EXPECT_EQ(read_at<std::uint32_t>(*ram, 0x7000 + 0x21c), 0U) << "none";
    ASSERT_TRUE(write_text_file(initrd, std::string(10'000, 'i')));
    const auto entry = load_guest(*ram, kernel, "", 1, initrd);
    ASSERT_TRUE(entry) << entry.error().message();
    const auto address = read_at<std::uint32_t>(*ram, 0x7000 + 0x218);
    EXPECT_EQ(address, std::min(size, mmio_gap_start) - 3 * page_size);
    EXPECT_EQ(read_at<std::uint32_t>(*ram, 0x7000 + 0x21c), 10'000U);
    EXPECT_EQ(read_at<char>(*ram, address), 'i');
    EXPECT_EQ(read_at<char>(*ram, address + 9'999), 'i');
  }
}

TEST_F(boot, an_initrd_that_is_none_or_leaves_no_room_for_the_kernel_is_refused) {
  ASSERT_TRUE(load(elf(), "", 8 * mib));
  const auto initrd = dir.path() / "initrd";
  const auto code = [&] { return load_guest(*ram, kernel, "", 1, initrd).error().code; };
  EXPECT_EQ(code(), errc::not_found);
  for (const std::uint64_t size : {std::uint64_t{0}, 7 * mib, 8 * mib, 9 * mib}) {
    ASSERT_TRUE(write_text_file(initrd, std::string(size, 'i')));
    EXPECT_EQ(code(), errc::invalid_argument) << size;
  }
}

TEST_F(boot, a_command_line_has_2047_bytes) {
  EXPECT_TRUE(load(elf(), std::string(2047, 'a')));
  const auto refused = load(elf(), std::string(2048, 'a'));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("2,047"));
}

}  // namespace
}  // namespace coppice::reference
