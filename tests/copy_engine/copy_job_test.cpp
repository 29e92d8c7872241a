// One copy from its begin to its end. The test is the disk, the guest and the fault thread.
#include "copy_engine/copy_job.hpp"

#include <gtest/gtest.h>

#include "base/image_digest.hpp"
#include "copy_engine/fault_server.hpp"
#include "tests/copy_engine/engine_parts.hpp"

namespace coppice {
namespace {

class copy_job_test : public ::testing::Test {
 protected:
  void begin() {
    auto image = testing::make_memfd(pages * page_size);
    image_copy = unique_fd(::dup(image.get()));
    job = std::make_unique<copy_job>(surroundings, epoch, std::move(image), 0,
                                     [this](result<copy_result> of) { outcome = std::move(of); });
  }
  // Begins a copy of a guest with a large hot set, that has met a protected page in each block since.
  void let_guest_fault_everywhere() {
    for (std::size_t block = 0; block < 33; ++block) epoch->touches_of_block[block] = 1;
    begin();
    for (std::size_t page = 5; page < pages; page += block_pages) guest_writes(page, 2);
  }
  // As the copy thread's loop does, on a disk that takes all at once.
  void run_to_the_end_of_the_copy() {
    for (int rounds = 0; !job->is_over() && rounds < 1000; ++rounds) {
      job->work();
      queue.write_all();
    }
    ASSERT_TRUE(job->is_over());
  }
  void close() {
    job->begin_closing();
    job->closed(epoch->why_over());
  }
  // The guest writes to the page, which is a fault if it is protected.
  void guest_writes(std::size_t page, unsigned char what) {
    ASSERT_TRUE(faults.serve(*guest.vm, page));
    guest.write(page, what);
  }
  std::vector<unsigned char> image() const {
    std::vector<unsigned char> read(pages * page_size);
    EXPECT_EQ(::pread(image_copy.get(), read.data(), read.size(), 0), static_cast<ssize_t>(read.size()));
    return read;
  }
  std::vector<unsigned char> ram() { return {guest.content(0), guest.content(0) + pages * page_size}; }

  static constexpr std::size_t pages = 40 * block_pages;
  testing::fake_vm guest{pages};
  std::shared_ptr<memory_epoch> epoch = guest.epoch_in(epoch_phase::active);
  bounce_pool pool = *bounce_pool::create(pages * page_size);
  engine_counters counters;
  rate_limit host_limit{0};
  fault_server faults{pool, counters};
  testing::fake_queue queue;
  int notified = 0;
  copy_surroundings surroundings{
      queue, pool, counters, host_limit, std::chrono::milliseconds(0), [this] { ++notified; }};
  unique_fd image_copy;
  std::unique_ptr<copy_job> job;
  std::optional<result<copy_result>> outcome;
};

TEST_F(copy_job_test, an_image_is_ram_as_it_was_when_the_epoch_began) {
  guest.write(17, 42);
  guest.write(18, 0);
  const auto instant = ram();
  begin();
  guest_writes(30 * block_pages, 2);  // before the stream comes there
  job->work();
  guest_writes(3, 2);  // in flight
  run_to_the_end_of_the_copy();
  close();
  ASSERT_TRUE(job->is_drained());
  EXPECT_FALSE(outcome);
  job->finish();
  ASSERT_TRUE(outcome && outcome->ok());
  EXPECT_TRUE(image() == instant);
  const copy_result& result = outcome->value();
  EXPECT_EQ(result.chunk_checksums, *checksum_image_file(image_copy.get(), pages * page_size));
  EXPECT_EQ(result.summary.captured_pages, 2U);
  EXPECT_EQ(result.summary.zero_pages, 1U);
  EXPECT_EQ(result.summary.bulk_pages, pages - 3);
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(epoch->settled_pages, pages);
  EXPECT_GE(notified, 5) << "each slice may be lifted";
}

TEST_F(copy_job_test, a_write_that_fails_fails_the_copy_once_all_others_are_through) {
  begin();
  guest_writes(pages - 1, 2);
  job->work();
  guest_writes(3, 2);
  job->work();
  ASSERT_GE(queue.writes.size(), 2U);
  queue.complete(-ENOSPC);
  EXPECT_TRUE(job->is_over());
  EXPECT_FALSE(job->work().more_in) << "it goes no further";
  close();
  EXPECT_FALSE(job->is_drained()) << "a write is in flight";
  queue.write_all();
  ASSERT_TRUE(job->is_drained());
  job->finish();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->error().code, errc::no_space);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(copy_job_test, a_copy_whose_epoch_was_over_before_its_last_pages_were_read_fails) {
  begin();
  run_to_the_end_of_the_copy();
  epoch->phase = epoch_phase::failed;
  epoch->given_up = error{errc::unavailable, 0, "the disk is too slow"};
  close();
  job->finish();
  EXPECT_EQ(outcome->error().code, errc::unavailable);
}

TEST_F(copy_job_test, a_copy_that_is_ended_waits_for_its_writes_in_flight_and_makes_no_more) {
  begin();
  job->work();
  bool ended = false;
  job->end({errc::cancelled, 0, "the branch was given up"}, [&] { ended = true; });
  job->work();
  EXPECT_EQ(queue.writes.size(), 1U);
  EXPECT_FALSE(job->is_over()) << "its epoch is closed already";
  EXPECT_FALSE(job->is_drained());
  queue.write_all();
  ASSERT_TRUE(job->is_drained());
  job->finish();
  EXPECT_TRUE(ended);
  EXPECT_EQ(outcome->error().code, errc::cancelled);
}

TEST_F(copy_job_test, an_abort_that_comes_while_it_is_closed_changes_no_outcome) {
  begin();
  run_to_the_end_of_the_copy();
  job->begin_closing();
  bool ended = false;
  job->end({errc::cancelled, 0, "the branch was given up"}, [&] { ended = true; });
  EXPECT_FALSE(job->is_drained());
  job->closed(std::nullopt);
  job->finish();
  EXPECT_TRUE(outcome->ok());
  EXPECT_TRUE(ended);
}

TEST_F(copy_job_test, one_that_must_hurry_saves_ahead_of_a_disk_that_is_stuck) {
  const auto instant = ram();
  let_guest_fault_everywhere();
  for (int turns = 0; turns < 25; ++turns) job->work();
  EXPECT_GT(queue.writes.size(), 0U);
  EXPECT_GT(counters.saved_ahead_pages, 0U);
  const std::size_t saved = counters.saved_ahead_pages;
  std::size_t needed = 0;
  for (std::size_t page = 0; page < pages; ++page) needed += epoch->states.needs_capture(page) ? 1U : 0U;
  EXPECT_LE(needed, pages - saved - 1);
  for (std::size_t page = 0; page < pages; ++page) {
    if (!epoch->states.needs_capture(page)) guest.write(page, 3);  // a guest is free to
  }
  run_to_the_end_of_the_copy();
  EXPECT_TRUE(image() == instant);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(copy_job_test, one_that_must_hurry_gives_back_what_it_saved_if_it_is_ended) {
  let_guest_fault_everywhere();
  for (int turns = 0; turns < 25; ++turns) job->work();
  ASSERT_GT(pool.used_bytes(), 0U);
  job->end({errc::cancelled, 0, "the branch was given up"}, [] {});
  queue.write_all();
  ASSERT_TRUE(job->is_drained());
  release_captures(*epoch, pool);
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST_F(copy_job_test, does_not_hurry_when_all_is_streamed) {
  let_guest_fault_everywhere();
  job->work();
  EXPECT_TRUE(job->must_hurry());
  run_to_the_end_of_the_copy();
  EXPECT_FALSE(job->must_hurry());
}

TEST_F(copy_job_test, says_when_a_limit_holds_it_up) {
  begin();
  host_limit.set(1, engine_clock::now());
  job->work();  // spends the credit, and more
  const auto turn = job->work();
  EXPECT_FALSE(turn.has_written);
  EXPECT_GT(turn.more_in, std::chrono::seconds(1));
  EXPECT_TRUE(epoch->waits_for_limit);
  job->end({errc::cancelled, 0, "the branch was given up"}, [] {});
  job->work();
  EXPECT_FALSE(epoch->waits_for_limit);
  queue.write_all();
}

}  // namespace
}  // namespace coppice
