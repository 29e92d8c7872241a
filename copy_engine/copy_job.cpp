#include "copy_engine/copy_job.hpp"

#include <utility>

#include "base/image_digest.hpp"

namespace coppice {

copy_job::copy_job(const copy_surroundings& surroundings, std::shared_ptr<memory_epoch> epoch, unique_fd image,
                   std::uint64_t bytes_per_second, copy_session::copy_completion done)
    : surroundings_(surroundings),
      epoch_(std::move(epoch)),
      done_(std::move(done)),
      tally_(*epoch_),
      captured_(*epoch_, surroundings.pool, tally_),
      cursor_(*epoch_),
      stream_(*epoch_, cursor_, captured_, tally_),
      pressure_(cursor_.hot_blocks(), begin_, surroundings.hot_set_time),
      writer_(surroundings.queue, *this, std::move(image), epoch_->states.size(), surroundings.host_limit,
              bytes_per_second, surroundings.counters) {
  if (auto looked = cursor_.look_for_holes(); !looked) fail(std::move(looked).error());
}

copy_job::turn copy_job::work() {
  if (!goes_on()) {
    epoch_->waits_for_limit.store(false, std::memory_order_relaxed);  // but for its last writes, maybe
    return {};
  }
  captured_.take(cursor_, writer_);
  captured_.hurry_up(cursor_.at_end() || epoch_->waits_for_limit.load(std::memory_order_relaxed));
  captured_.write(writer_);
  pressure_.look_at_faults(epoch_->capturing_faults.load(std::memory_order_relaxed), engine_clock::now());
  turn done{time_to_write()};
  if (done.more_in && done.more_in->count() == 0) {
    write_block();
    done = {time_to_write(), true};
  }
  const bool waits_for_limit = done.more_in && done.more_in->count() > 0;
  epoch_->waits_for_limit.store(waits_for_limit, std::memory_order_relaxed);
  if ((!done.more_in || waits_for_limit) && save_ahead()) done.more_in = std::chrono::nanoseconds(0);
  return done;
}

std::optional<std::chrono::nanoseconds> copy_job::time_to_write() {
  if (cursor_.at_end() && saved_.empty()) return std::nullopt;
  return writer_.time_to_bulk_write();
}

void copy_job::write_block() {
  if (saved_.empty()) return stream_block(nullptr, [this](write_operation run) { writer_.submit(std::move(run)); });
  writer_.submit(std::move(saved_.front()));
  saved_.pop_front();
}

bool copy_job::save_ahead() {
  if (!must_hurry()) {
    save_into_.reset();  // others may have what is left of it
    return false;
  }
  if (!save_into_ || save_into_->room() < block_pages) {
    // What is in flight may have to be captured, all of it, if the disk is stuck.
    save_into_ = save_buffer::allocate(surroundings_.pool, epoch_->vm, writer_.bulk_bytes_in_flight() / page_size);
    if (!save_into_) return false;
  }
  const std::size_t before = saved_pages_;
  stream_block(save_into_.get(), [this](write_operation run) {
    const std::size_t saved = run.pages - run.captures.size();
    run.saved = save_into_;
    saved_.push_back(std::move(run));
    saved_pages_ += saved;
    surroundings_.counters.saved_ahead_pages.fetch_add(saved, std::memory_order_relaxed);
  });
  if (before / slice_pages != saved_pages_ / slice_pages || cursor_.at_end()) surroundings_.notify_settled();
  return true;
}

void copy_job::stream_block(save_buffer* into, const bulk_stream::run_taker& take) {
  pressure_.block_streamed();
  if (auto streamed = stream_.stream_block(into, take); !streamed) fail(std::move(streamed).error());
}

void copy_job::completed(write_operation& operation, int outcome) {
  auto ended = writer_.completed(operation, outcome, goes_on());
  if (!ended) return;
  if (ended->failure) fail(std::move(*ended->failure));
  if (goes_on()) return settle(ended->operation);
  captured_.release(ended->operation.captures);
  captured_.release(ended->operation.overwrites);
}

void copy_job::settle(const write_operation& ended) {
  for (const capture_write& each : ended.captures) captured_.settle(each.buffer);
  std::size_t settled = 0;
  for (std::size_t page = ended.first_page; page < ended.first_page + ended.pages; ++page) {
    if (ended.saved || epoch_->states.settle(page)) ++settled;
  }
  if (ended.saved) settled -= ended.captures.size();
  surroundings_.counters.bulk_pages.fetch_add(settled, std::memory_order_relaxed);
  const std::size_t before = tally_.settled_pages();
  tally_.count_bulk(settled);
  // After the last page of RAM is claimed, each write from there may be what a slice waits for.
  const bool may_be_last = !ended.saved && settled > 0 && cursor_.at_end();
  if (before / slice_pages != tally_.settled_pages() / slice_pages || may_be_last) surroundings_.notify_settled();
  captured_.write_later(ended.overwrites);
}

void copy_job::fail(error reason) {
  if (goes_on()) failure_ = std::move(reason);
}

void copy_job::begin_closing() {
  took_ = std::chrono::duration_cast<std::chrono::microseconds>(engine_clock::now() - begin_);
  leave_copying(job_stage::closing);
}

void copy_job::closed(const std::optional<error>& over) {
  if (stage_ != job_stage::closing) return;
  stage_ = job_stage::draining;
  if (over && !failure_) failure_ = over;
}

void copy_job::end(const error& reason, std::function<void()> done) {
  when_ended_.push_back(std::move(done));
  if (stage_ != job_stage::copying) return;
  failure_ = reason;
  leave_copying(job_stage::draining);
}

void copy_job::leave_copying(job_stage next) {
  stage_ = next;
  for (const write_operation& operation : std::exchange(saved_, {})) captured_.release(operation.captures);
  save_into_.reset();
  captured_.release_all();
}

void copy_job::finish() {
  if (failure_) {
    done_(std::move(*failure_));
  } else {
    copy_summary summary = tally_.summary();
    summary.written_bytes = writer_.written_bytes();
    summary.copy = took_;
    summary.faults = epoch_->faults.load(std::memory_order_relaxed);
    summary.longest_fault = std::chrono::microseconds(epoch_->longest_fault_us.load(std::memory_order_relaxed));
    summary.prearm = std::chrono::microseconds(epoch_->prearm_us.load(std::memory_order_relaxed));
    done_(copy_result{summary, chunk_checksums(writer_.digests())});
  }
  for (const auto& done : when_ended_) done();
}

}  // namespace coppice
