// The way through RAM: in which order, and which runs of pages come out.
#include "copy_engine/bulk_stream.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

class bulk_stream_test : public ::testing::Test {
 protected:
  void capture(std::size_t page) {
    bounce_buffer* const buffer = pool.acquire(guest.vm->bounce);
    buffer->page = page;
    std::memcpy(buffer->data, guest.content(page), page_size);
    ASSERT_TRUE(epoch->states.capture(page));
    epoch->captures.push(buffer);
  }
  void punch_hole(std::size_t first, std::size_t end) {
    ASSERT_EQ(::fallocate(guest.memory->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          static_cast<off_t>(first * page_size), static_cast<off_t>((end - first) * page_size)),
              0);
  }
  // Begins the copy.
  void start() {
    cursor = std::make_unique<stream_cursor>(*epoch);
    ASSERT_TRUE(cursor->look_for_holes());
    captured.take(*cursor, writer);
    stream = std::make_unique<bulk_stream>(*epoch, *cursor, captured, tally);
  }
  // The runs of the next block: first page, number of pages.
  using runs = std::vector<std::pair<std::size_t, std::size_t>>;
  runs next_block(save_buffer* into = nullptr) {
    runs found;
    operations.clear();
    const auto streamed = stream->stream_block(into, [&](write_operation run) {
      found.emplace_back(run.first_page, run.pages);
      operations.push_back(std::move(run));
    });
    EXPECT_TRUE(streamed);
    return found;
  }

  static constexpr std::size_t pages = 4 * block_pages + 10;
  testing::fake_vm guest{pages};
  const std::shared_ptr<memory_epoch> epoch = guest.epoch_in(epoch_phase::active);
  bounce_pool pool = *bounce_pool::create(8 * save_buffer::pages * page_size);
  engine_counters counters;
  rate_limit host_limit{0};
  testing::fake_queue queue;
  testing::fake_listener listener;
  image_writer writer{queue, listener, testing::make_memfd(pages* page_size), pages, host_limit, 0, counters};
  copy_tally tally{*epoch};
  captured_pages captured{*epoch, pool, tally};
  std::unique_ptr<stream_cursor> cursor;
  std::unique_ptr<bulk_stream> stream;
  std::vector<write_operation> operations;  // of the last block
};

TEST_F(bulk_stream_test, goes_through_ram_in_its_order_a_block_at_a_time) {
  start();
  for (std::size_t block = 0; block < 4; ++block) {
    EXPECT_EQ(next_block(), (runs{{block * block_pages, block_pages}}));
    EXPECT_EQ(operations[0].parts.size(), 1U) << "one piece of RAM";
  }
  EXPECT_FALSE(cursor->at_end());
  EXPECT_EQ(next_block(), (runs{{4 * block_pages, 10}}));
  EXPECT_TRUE(cursor->at_end());
  EXPECT_EQ(epoch->states.at(7), page_state::in_flight);
}

TEST_F(bulk_stream_test, what_the_guest_wrote_to_most_comes_first_and_only_once) {
  epoch->touches_of_block[1] = 2;
  epoch->touches_of_block[3] = 5;
  start();
  EXPECT_EQ(cursor->hot_blocks(), 2U);
  EXPECT_EQ(next_block(), (runs{{3 * block_pages, block_pages}}));
  EXPECT_EQ(next_block(), (runs{{1 * block_pages, block_pages}}));
  EXPECT_FALSE(cursor->has_passed(1 * block_pages));
  EXPECT_EQ(next_block(), (runs{{0, block_pages}}));
  EXPECT_EQ(next_block(), runs{});
  EXPECT_EQ(next_block(), (runs{{2 * block_pages, block_pages}}));
}

TEST_F(bulk_stream_test, zero_pages_and_holes_need_no_write) {
  guest.write(10, 0);
  punch_hole(20, 30);
  start();
  EXPECT_EQ(next_block(), (runs{{0, 10}, {11, 9}, {30, block_pages - 30}}));
  EXPECT_EQ(tally.summary().zero_pages, 1U);
  EXPECT_EQ(tally.summary().hole_pages, 10U);
  EXPECT_EQ(epoch->states.at(10), page_state::done);
  EXPECT_EQ(epoch->states.at(25), page_state::done);
  EXPECT_EQ(epoch->settled_pages, 11U);
}

TEST_F(bulk_stream_test, a_hole_is_skipped_to_its_end_beyond_the_block) {
  punch_hole(100, 3 * block_pages + 5);
  start();
  EXPECT_EQ(next_block(), (runs{{0, 100}}));
  EXPECT_TRUE(cursor->has_passed(3 * block_pages + 4));
  EXPECT_EQ(next_block(), (runs{{3 * block_pages + 5, block_pages}}));
}

TEST_F(bulk_stream_test, ram_that_ends_with_a_hole_is_streamed_to_its_end) {
  punch_hole(100, pages);
  start();
  EXPECT_EQ(next_block(), (runs{{0, 100}}));
  EXPECT_TRUE(cursor->at_end());
}

TEST_F(bulk_stream_test, a_captured_page_that_waits_is_part_of_its_blocks_run) {
  capture(10);
  guest.write(10, 43);
  start();
  EXPECT_EQ(next_block(), (runs{{0, block_pages}}));
  ASSERT_EQ(operations[0].captures.size(), 1U);
  EXPECT_EQ(operations[0].parts.size(), 3U) << "RAM, the buffer, RAM";
  EXPECT_EQ(*static_cast<unsigned char*>(operations[0].parts[1].iov_base), 1) << "as it was at its capture";
}

TEST_F(bulk_stream_test, a_captured_page_that_is_zero_is_settled) {
  guest.write(10, 0);
  capture(10);
  start();
  EXPECT_EQ(next_block(), (runs{{0, 10}, {11, block_pages - 11}}));
  EXPECT_EQ(tally.summary().captured_pages, 1U);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(bulk_stream_test, a_page_that_somebody_else_has_dealt_with_ends_the_run) {
  epoch->states.skip(10);
  start();
  EXPECT_EQ(next_block(), (runs{{0, 10}, {11, block_pages - 11}}));
}

TEST_F(bulk_stream_test, what_is_saved_ahead_needs_its_protection_no_more) {
  start();
  const auto into = save_buffer::allocate(pool, guest.vm, 0);
  ASSERT_TRUE(into);
  EXPECT_EQ(next_block(into.get()), (runs{{0, block_pages}}));
  EXPECT_EQ(into->room(), save_buffer::pages - block_pages);
  EXPECT_EQ(epoch->states.at(7), page_state::done);
  EXPECT_EQ(tally.settled_pages(), 0U) << "it counts when it is written";
  guest.write(7, 42);
  EXPECT_EQ(static_cast<unsigned char*>(operations[0].parts[0].iov_base)[7 * page_size], 1);
}

}  // namespace
}  // namespace coppice
