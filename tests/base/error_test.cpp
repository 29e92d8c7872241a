#include <gtest/gtest.h>

#include <memory>

#include "base/result.hpp"

namespace coppice {
namespace {

TEST(error, a_full_disk_has_a_code_of_its_own) {
  EXPECT_EQ(errno_error("write", ENOSPC).code, errc::no_space);
  EXPECT_EQ(errno_error("write", EDQUOT).code, errc::no_space);
  EXPECT_EQ(errno_error("open", ENOENT).code, errc::not_found);
  EXPECT_EQ(errno_error("open", EACCES).code, errc::io);
}

TEST(error, the_message_carries_context_and_reason) {
  EXPECT_EQ(errno_error("open /x", EACCES).message(), "open /x: Permission denied");
  EXPECT_EQ((error{errc::conflict, 0, "tag taken"}).message(), "tag taken");
}

TEST(result, try_returns_the_first_error) {
  const auto steps = [](bool fail) -> result<int> {
    COPPICE_TRY(fail ? result<void>(error{errc::io, 0, "first"}) : result<void>());
    return 7;
  };
  EXPECT_EQ(*steps(false), 7);
  EXPECT_EQ(steps(true).error().context, "first");
}

TEST(result, a_move_only_value_can_be_taken_out) {
  result<std::unique_ptr<int>> holder(std::make_unique<int>(3));
  EXPECT_EQ(*std::move(holder).value(), 3);
}

}  // namespace
}  // namespace coppice
