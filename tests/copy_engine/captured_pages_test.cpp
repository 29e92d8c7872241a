// What becomes of captured pages: with the stream, after a write in flight, or by themselves.
#include "copy_engine/captured_pages.hpp"

#include <gtest/gtest.h>

#include "base/image_digest.hpp"
#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

class captured_pages_test : public ::testing::Test {
 protected:
  captured_pages_test() {
    listener.handle = [this](write_operation& operation, int outcome) {
      const auto ended = writer.completed(operation, outcome, true);
      ASSERT_TRUE(ended);
      for (const capture_write& each : ended->operation.captures) captured.settle(each.buffer);
      captured.write_later(ended->operation.overwrites);
    };
  }
  // As a fault does: what RAM holds now.
  void capture(std::size_t page) {
    bounce_buffer* const buffer = pool.acquire(guest.vm->bounce);
    buffer->page = page;
    std::memcpy(buffer->data, guest.content(page), page_size);
    ASSERT_TRUE(epoch->states.capture(page));
    epoch->captures.push(buffer);
  }
  void let_stream_reach(std::size_t page) { cursor.passed({0, page, false}, page); }
  unsigned char written(std::size_t page) const {
    unsigned char byte = 0;
    EXPECT_EQ(::pread(image_fd, &byte, 1, static_cast<off_t>(page * page_size)), 1);
    return byte;
  }

  static constexpr std::size_t pages = 2 * block_pages;
  testing::fake_vm guest{pages};
  const std::shared_ptr<memory_epoch> epoch = guest.epoch_in(epoch_phase::active);
  bounce_pool pool = *bounce_pool::create(64 * page_size);
  engine_counters counters;
  rate_limit host_limit{0};
  testing::fake_queue queue;
  testing::fake_listener listener;
  unique_fd image = testing::make_memfd(pages * page_size);
  const int image_fd = image.get();
  copy_tally tally{*epoch};
  stream_cursor cursor{*epoch};
  image_writer writer{queue, listener, std::move(image), pages, host_limit, 0, counters};
  captured_pages captured{*epoch, pool, tally};
};

TEST_F(captured_pages_test, one_that_the_stream_has_yet_to_reach_waits_for_it) {
  capture(100);
  captured.take(cursor, writer);
  captured.hurry_up(false);
  captured.write(writer);
  EXPECT_TRUE(queue.writes.empty());
  EXPECT_EQ(captured.take_waiting(99), nullptr);
  bounce_buffer* const buffer = captured.take_waiting(100);
  ASSERT_NE(buffer, nullptr);
  EXPECT_EQ(captured.take_waiting(100), nullptr) << "it is the stream's now";
  captured.settle(buffer);
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(tally.settled_pages(), 1U);
}

TEST_F(captured_pages_test, those_behind_the_stream_are_written_by_themselves_neighbours_together) {
  let_stream_reach(block_pages);
  for (const std::size_t page : {12U, 10U, 30U, 11U}) {
    guest.write(page, static_cast<unsigned char>(page));
    capture(page);
  }
  captured.take(cursor, writer);
  captured.write(writer);
  EXPECT_EQ(queue.writes.size(), 2U);
  queue.write_all();
  for (const std::size_t page : {10U, 11U, 12U, 30U}) EXPECT_EQ(written(page), page);
  EXPECT_EQ(tally.summary().captured_pages, 4U);
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(writer.digests()[11], page_digest({guest.memory->data() + 11 * page_size, page_size}));
}

TEST_F(captured_pages_test, a_page_captured_while_it_is_written_is_written_again_and_after_that) {
  write_operation run;
  ASSERT_TRUE(epoch->states.claim(10));
  guest.write(10, 42);
  capture(10);
  guest.write(10, 43);  // the guest goes on
  run.append(10, guest.memory->data() + 10 * page_size);
  writer.submit(std::move(run));
  captured.take(cursor, writer);
  captured.write(writer);
  EXPECT_EQ(queue.writes.size(), 1U) << "not beside it";
  queue.write_one();
  EXPECT_EQ(written(10), 43);
  captured.write(writer);
  queue.write_all();
  EXPECT_EQ(written(10), 42);
}

TEST_F(captured_pages_test, one_whose_write_has_ended_is_written_even_if_it_is_zero) {
  ASSERT_TRUE(epoch->states.claim(10));
  guest.write(10, 0);
  capture(10);
  captured.take(cursor, writer);
  captured.write(writer);
  EXPECT_EQ(queue.writes.size(), 1U) << "the image may hold what the guest wrote since";
}

TEST_F(captured_pages_test, zero_pages_are_settled_without_a_write) {
  let_stream_reach(block_pages);
  guest.write(10, 0);
  capture(10);
  captured.take(cursor, writer);
  captured.write(writer);
  EXPECT_TRUE(queue.writes.empty());
  EXPECT_EQ(tally.settled_pages(), 1U);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(captured_pages_test, none_waits_for_a_stream_that_stands) {
  capture(100);
  captured.take(cursor, writer);
  captured.hurry_up(true);
  captured.write(writer);
  EXPECT_EQ(queue.writes.size(), 1U);
}

TEST_F(captured_pages_test, none_waits_where_bounce_memory_is_scarce) {
  for (std::size_t page = 0; page < 7; ++page) capture(100 + page);
  captured.take(cursor, writer);
  captured.hurry_up(false);
  captured.write(writer);
  EXPECT_TRUE(queue.writes.empty()) << "7 of 57 that are free: less than an eighth";
  capture(110);
  captured.take(cursor, writer);
  captured.hurry_up(false);
  captured.write(writer);
  EXPECT_EQ(queue.writes.size(), 2U) << "and of 56, more";
}

TEST_F(captured_pages_test, what_is_not_written_is_given_back) {
  let_stream_reach(block_pages);
  capture(10);
  capture(300);
  captured.take(cursor, writer);
  capture(20);
  captured.release_all();
  release_captures(*epoch, pool);
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(tally.settled_pages(), 0U);
}

}  // namespace
}  // namespace coppice
