// One image's writes. The test is the disk.
#include "copy_engine/image_writer.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>

#include "base/image_digest.hpp"
#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

class image_writer_test : public ::testing::Test {
 protected:
  image_writer_test() {
    listener.handle = [this](write_operation& operation, int outcome) {
      ended = writer->completed(operation, outcome, is_wanted);
    };
    start(testing::make_memfd(pages * page_size));
  }
  void start(unique_fd to, std::uint64_t bytes_per_second = 0) {
    image = unique_fd(::dup(to.get()));
    writer =
        std::make_unique<image_writer>(queue, listener, std::move(to), pages, host_limit, bytes_per_second, counters);
  }
  // Pages of RAM, in one bulk write.
  write_operation run_of(std::size_t first, std::size_t count) {
    write_operation run;
    for (std::size_t page = first; page < first + count; ++page) {
      run.append(page, guest.memory->data() + page * page_size);
    }
    return run;
  }
  unsigned char written(std::size_t page) const {
    unsigned char byte = 0;
    EXPECT_EQ(::pread(image.get(), &byte, 1, static_cast<off_t>(page * page_size)), 1);
    return byte;
  }

  static constexpr std::size_t pages = 16 * block_pages;
  testing::fake_vm guest{pages};
  testing::fake_queue queue;
  testing::fake_listener listener;
  rate_limit host_limit{0};
  engine_counters counters;
  unique_fd image;
  std::unique_ptr<image_writer> writer;
  bool is_wanted = true;
  std::optional<image_writer::ended_write> ended;
};

TEST_F(image_writer_test, a_run_is_written_to_its_place_and_digested) {
  guest.write(7, 42);
  writer->submit(run_of(6, 3));
  EXPECT_FALSE(writer->is_idle());
  EXPECT_EQ(writer->bulk_bytes_in_flight(), 3 * page_size);
  queue.write_one();
  ASSERT_TRUE(ended);
  EXPECT_FALSE(ended->failure);
  EXPECT_EQ(ended->operation.first_page, 6U);
  EXPECT_TRUE(writer->is_idle());
  EXPECT_EQ(writer->bulk_bytes_in_flight(), 0U);
  EXPECT_EQ(written(7), 42);
  EXPECT_EQ(writer->digests()[7], page_digest({guest.memory->data() + 7 * page_size, page_size}));
  EXPECT_EQ(writer->digests()[9], zero_page_digest());
  EXPECT_EQ(writer->written_bytes(), 3 * page_size);
}

TEST_F(image_writer_test, what_a_short_write_leaves_is_written_after_it) {
  for (std::size_t page = 0; page < 4; ++page) guest.write(page, static_cast<unsigned char>(10 + page));
  write_operation run = run_of(0, 1);
  run.append(1, guest.memory->data() + 3 * page_size);  // not its neighbour in memory: a part of its own
  run.append(2, guest.memory->data() + 2 * page_size);
  writer->submit(std::move(run));
  queue.write_one(page_size + 100);
  EXPECT_FALSE(ended);
  ASSERT_EQ(queue.writes.size(), 1U);
  EXPECT_EQ(queue.writes[0].operation->offset, page_size + 100);
  queue.write_one();
  ASSERT_TRUE(ended);
  EXPECT_EQ(written(0), 10);
  EXPECT_EQ(written(1), 13);
  EXPECT_EQ(written(2), 12);
  EXPECT_EQ(writer->written_bytes(), 3 * page_size);
}

TEST_F(image_writer_test, an_interrupted_write_is_made_again) {
  writer->submit(run_of(0, 1));
  for (const int outcome : {-EAGAIN, -EINTR}) {
    queue.complete(outcome);
    EXPECT_FALSE(ended);
    EXPECT_EQ(queue.writes.size(), 1U);
  }
}

TEST_F(image_writer_test, a_write_that_a_file_system_refuses_past_its_cache_is_made_through_it) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);  // takes O_DIRECT on every kernel
  const unique_fd other(ends[0]);
  start(unique_fd(ends[1]));
  ASSERT_TRUE(::fcntl(image.get(), F_GETFL) & O_DIRECT);
  writer->submit(run_of(0, 1));
  writer->submit(run_of(1, 1));
  queue.complete(-EINVAL);
  EXPECT_FALSE(ended);
  EXPECT_FALSE(::fcntl(image.get(), F_GETFL) & O_DIRECT);
  queue.complete(-EINVAL);  // was under way already
  EXPECT_FALSE(ended);
  ASSERT_EQ(queue.writes.size(), 2U);
  queue.complete(-EINVAL);  // that is an error of another kind
  ASSERT_TRUE(ended && ended->failure);
}

TEST_F(image_writer_test, an_error_ends_the_write_and_says_where) {
  writer->submit(run_of(3, 2));
  queue.complete(-ENOSPC);
  ASSERT_TRUE(ended && ended->failure);
  EXPECT_EQ(ended->failure->code, errc::no_space);
  EXPECT_NE(ended->failure->message().find("offset 12288"), std::string::npos) << ended->failure->message();
  EXPECT_EQ(writer->bulk_bytes_in_flight(), 0U);
  writer->submit(run_of(3, 1));
  queue.complete(0);
  ASSERT_TRUE(ended->failure) << "nothing written is no progress";
}

TEST_F(image_writer_test, a_write_that_nobody_wants_any_more_ends_as_it_is) {
  is_wanted = false;
  for (const int outcome : {-EAGAIN, static_cast<int>(page_size)}) {
    writer->submit(run_of(0, 2));
    queue.complete(outcome);
    EXPECT_TRUE(ended);
    EXPECT_TRUE(queue.writes.empty() && writer->is_idle());
    EXPECT_EQ(writer->bulk_bytes_in_flight(), 0U);
    ended.reset();
  }
}

TEST_F(image_writer_test, so_much_is_in_flight_and_no_more) {
  for (int block = 0; block < 8; ++block) {
    EXPECT_EQ(writer->time_to_bulk_write(), std::chrono::nanoseconds(0));
    writer->submit(run_of(static_cast<std::size_t>(block) * block_pages, block_pages));
  }
  EXPECT_FALSE(writer->time_to_bulk_write()) << "8 MiB";
  EXPECT_TRUE(writer->takes_captures()) << "they have their own";
  queue.write_one();
  EXPECT_TRUE(writer->time_to_bulk_write());
  queue.write_all();
  for (std::size_t i = 0; i < image_writer::max_bulk_writes; ++i) writer->submit(run_of(2 * i, 1));
  EXPECT_FALSE(writer->time_to_bulk_write());
}

TEST_F(image_writer_test, writes_wait_for_the_branchs_limit_and_for_the_hosts) {
  start(testing::make_memfd(pages * page_size), mib);
  EXPECT_EQ(writer->time_to_bulk_write(), std::chrono::nanoseconds(0));
  writer->submit(run_of(0, block_pages));
  EXPECT_GT(writer->time_to_bulk_write(), std::chrono::milliseconds(500));
  writer->set_rate(0, engine_clock::now());
  EXPECT_EQ(writer->time_to_bulk_write(), std::chrono::nanoseconds(0));
  host_limit.set(mib, engine_clock::now());
  writer->submit(run_of(block_pages, block_pages));
  EXPECT_GT(writer->time_to_bulk_write(), std::chrono::milliseconds(500));
}

TEST_F(image_writer_test, finds_the_bulk_write_of_a_page) {
  writer->submit(run_of(4, 2));
  write_operation captures;
  captures.offset = 9 * page_size;
  captures.parts.push_back({guest.memory->data(), page_size});
  writer->submit(std::move(captures));
  EXPECT_EQ(writer->bulk_write_of(3), nullptr);
  ASSERT_NE(writer->bulk_write_of(5), nullptr);
  EXPECT_EQ(writer->bulk_write_of(5)->first_page, 4U);
  EXPECT_EQ(writer->bulk_write_of(6), nullptr);
  EXPECT_EQ(writer->bulk_write_of(9), nullptr) << "captures by themselves";
}

}  // namespace
}  // namespace coppice
