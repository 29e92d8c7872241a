#include "base/guest_memory.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "base/data_extents.hpp"
#include "base/file.hpp"

namespace coppice {
namespace {

TEST(guest_memory, is_all_holes_of_the_size_asked_for) {
  const auto memory = guest_memory::create("test", 16 * mib);
  ASSERT_TRUE(memory.ok()) << memory.error().message();
  EXPECT_EQ(memory->size(), 16 * mib);
  struct stat status {};
  ASSERT_EQ(::fstat(memory->fd(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(16 * mib));
  EXPECT_TRUE(data_extents(memory->fd(), memory->size())->empty());
}

TEST(guest_memory, what_is_written_to_the_mapping_is_in_the_memfd_and_the_other_way_round) {
  auto memory = guest_memory::create("test", 4 * page_size);
  memory->data()[page_size] = std::byte{42};
  std::array<std::byte, 1> one{};
  ASSERT_TRUE(read_all_at(memory->fd(), one, page_size).ok());
  EXPECT_EQ(one[0], std::byte{42});
  one[0] = std::byte{43};
  ASSERT_TRUE(write_all_at(memory->fd(), one, 2 * page_size).ok());
  EXPECT_EQ(memory->data()[2 * page_size], std::byte{43});
}

TEST(guest_memory, nobody_who_has_the_memfd_can_change_its_size) {
  const auto memory = guest_memory::create("test", 4 * page_size);
  EXPECT_NE(::ftruncate(memory->fd(), page_size), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::ftruncate(memory->fd(), 8 * page_size), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::fcntl(memory->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0) << "and nobody can seal it against the guest";
}

TEST(guest_memory, its_memfd_is_not_inherited) {
  const auto memory = guest_memory::create("test", page_size);
  EXPECT_EQ(::fcntl(memory->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(guest_memory, sizes_of_no_whole_number_of_pages_are_refused) {
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{100}, page_size + std::uint64_t{1}}) {
    EXPECT_EQ(guest_memory::create("test", size).error().code, errc::invalid_argument) << size;
  }
}

TEST(guest_memory, a_size_that_no_machine_has_is_an_error) {
  EXPECT_FALSE(guest_memory::create("test", std::uint64_t{1} << 62).ok());
}

TEST(guest_memory, moving_it_moves_the_mapping) {
  auto first = guest_memory::create("test", page_size);
  const auto* address = first->data();
  const guest_memory second = std::move(*first);
  EXPECT_EQ(second.data(), address);
  EXPECT_EQ(first->size(), 0U);
  EXPECT_EQ(first->fd(), -1);
}

}  // namespace
}  // namespace coppice
