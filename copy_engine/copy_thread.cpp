#include "copy_engine/copy_thread.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <sys/vfs.h>

#include <algorithm>

#include "base/log.hpp"
#include "copy_engine/copy_priority.hpp"

namespace coppice {
namespace {

// Per job: they keep the disk busy, and the wait for an abort short. Captures have their own: a guest that writes at
// random leaves thousands, on whose single pages a disk with a limit of operations takes its time, and RAM must go on.
constexpr std::uint64_t max_bulk_bytes = 8 * mib;
constexpr std::size_t max_bulk_writes = 64, max_capture_writes = 64;
// Captured pages that wait for the bulk stream may be an eighth of what is free: with them a block is one write.
constexpr std::size_t most_waiting_of_free = 8;
constexpr unsigned ring_entries = 256;

std::uint64_t size_of(const std::vector<iovec>& parts) {
  std::uint64_t size = 0;
  for (const iovec& part : parts) size += part.iov_len;
  return size;
}

// A FUSE file claims that its submissions don't block, but they do once its server is behind; then every other job, and
// every abort, would wait for that server.
bool is_on_fuse(int fd) {
  struct statfs system {};
  return ::fstatfs(fd, &system) == 0 && system.f_type == FUSE_SUPER_MAGIC;
}

// False if the file system refuses it.
bool set_direct(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  return ::fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

// Drops the first `written` bytes.
void advance(write_operation& operation, std::uint64_t written) {
  operation.offset += written;
  auto part = operation.parts.begin();
  while (part != operation.parts.end() && written >= part->iov_len) written -= (part++)->iov_len;
  operation.parts.erase(operation.parts.begin(), part);
  if (written > 0) {
    operation.parts.front().iov_base = static_cast<std::byte*>(operation.parts.front().iov_base) + written;
    operation.parts.front().iov_len -= written;
  }
}

}  // namespace

result<std::unique_ptr<copy_thread>> copy_thread::start(const copy_engine_options& options, fault_thread& faults,
                                                        engine_counters& counters, rate_limit& host_limit) {
  auto wakeup = task_queue::make_eventfd();
  if (!wakeup) return std::move(wakeup).error();
  std::unique_ptr<copy_thread> made(new copy_thread(std::move(*wakeup), options, faults, counters, host_limit));
  COPPICE_TRY(made->set_up_ring());
  made->thread_ = std::thread([raw = made.get()] { raw->run(); });
  return made;
}

result<void> copy_thread::set_up_ring() {
  if (const int code = ::io_uring_queue_init(ring_entries, &ring_, 0); code < 0) {
    ring_.ring_fd = -1;
    return error{errc::unsupported, -code, "io_uring_queue_init (is /proc/sys/kernel/io_uring_disabled 0?)"};
  }
  return {};
}

copy_thread::~copy_thread() {
  if (thread_.joinable()) {
    post([this] { stopping_ = true; });
    thread_.join();
  }
  if (ring_.ring_fd >= 0) ::io_uring_queue_exit(&ring_);
}

void copy_thread::run() {
  ::pthread_setname_np(::pthread_self(), "coppice-copy");
  copy_priority priority;
  listen_for_wakeup();
  while (!stopping_) {
    tasks_.run_all();
    priority.reconsider(engine_clock::now());
    const auto more_in = pump();
    close_finished_jobs();
    hurry_if_need_be(priority);
    faults_.notify_released();  // by what needed no write
    wait_for_events(stopping_ ? std::chrono::nanoseconds(0) : more_in);
    io_uring_cqe* completion = nullptr;
    while (::io_uring_peek_cqe(&ring_, &completion) == 0) handle(completion);
    faults_.notify_released();
  }
}

void copy_thread::wait_for_events(std::optional<std::chrono::nanoseconds> at_most) {
  if (!at_most || at_most->count() == 0) {
    ::io_uring_submit_and_wait(&ring_, at_most ? 0 : 1);
    return;
  }
  const auto seconds = std::chrono::floor<std::chrono::seconds>(*at_most);
  __kernel_timespec timeout{seconds.count(), (*at_most - seconds).count()};
  io_uring_cqe* first = nullptr;
  ::io_uring_submit_and_wait_timeout(&ring_, &first, 1, &timeout, nullptr);  // -ETIME: the time is up
}

void copy_thread::listen_for_wakeup() {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_poll_add(entry, tasks_.fd(), POLLIN);
  ::io_uring_sqe_set_data(entry, nullptr);
}

void copy_thread::begin(std::shared_ptr<memory_epoch> epoch, unique_fd image, copy_session::copy_completion done) {
  auto job = std::make_shared<copy_job>(std::move(epoch), std::move(image), branch_bytes_per_second_, std::move(done));
  // Write past the page cache where the file system can: guest RAM goes to the disk without another copy.
  job->is_direct = set_direct(job->image.get(), true);
  job->submission_may_block = is_on_fuse(job->image.get());
  job->put_hot_blocks_first(hot_set_time_);
  jobs_.push_back(job);
  if (auto looked = job->look_for_holes(); !looked) fail(*job, std::move(looked).error());
}

void copy_thread::set_branch_rate(std::uint64_t bytes_per_second) {
  branch_bytes_per_second_ = bytes_per_second;
  const auto now = engine_clock::now();
  for (const auto& job : jobs_) job->limit.set(bytes_per_second, now);
}

void copy_thread::hurry_if_need_be(copy_priority& priority) {
  const bool wanted = std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->must_hurry(); });
  if (wanted != priority.hurries()) {
    priority.hurry(wanted);
    if (wanted) return hurry_on(cpu_bounds_.stay_here());
    cpu_bounds_.release();
    hurry_on(std::nullopt);
  } else if (hurries_on_ && priority.is_crowded(engine_clock::now())) {
    cpu_bounds_.keep_off({*hurries_on_});
    hurry_on(cpu_bounds_.stay_here());
  }
}

void copy_thread::hurry_on(std::optional<int> cpu) {
  const auto before = std::exchange(hurries_on_, cpu);
  if (before == cpu) return;
  faults_.post([&faults = faults_, before, cpu] {
    if (before) faults.keep_off(*before, false);
    if (cpu) faults.keep_off(*cpu, true);
  });
}

std::optional<std::chrono::nanoseconds> copy_thread::time_to_write(copy_job& job) const {
  const bool has_work = !job.bulk_complete() || !job.saved.empty();
  if (!has_work || job.bulk_bytes >= max_bulk_bytes || job.bulk_writes >= max_bulk_writes) return std::nullopt;
  const auto now = engine_clock::now();
  return std::max(job.limit.wait_at(now), host_limit_.wait_at(now));
}

std::optional<std::chrono::nanoseconds> copy_thread::pump() {
  std::optional<std::chrono::nanoseconds> more_in;
  if (!jobs_.empty()) more_in = copy_priority::look_every;  // workers that write may be starving
  auto next = jobs_.begin();
  for (std::size_t left = jobs_.size(); left > 0; --left) {
    const auto at = next++;
    const auto job = *at;
    if (job->stage != job_stage::copying || job->failure) {
      job->epoch->waits_for_limit.store(false, std::memory_order_relaxed);  // but for its last writes, maybe
      continue;
    }
    take_captures(*job);
    write_captures(*job);  // never held up by the limits: bounce memory is scarcer
    job->look_at_faults(engine_clock::now());
    auto wait = time_to_write(*job);
    if (wait && wait->count() == 0) {
      pump_bulk(*job);
      jobs_.splice(jobs_.end(), jobs_, at);  // the others come first next time: a limit of the host is shared
      wait = time_to_write(*job);
    }
    job->epoch->waits_for_limit.store(wait && wait->count() > 0, std::memory_order_relaxed);
    if ((!wait || wait->count() > 0) && save_ahead(*job)) wait = std::chrono::nanoseconds(0);
    if (wait) more_in = std::min(more_in.value_or(*wait), *wait);
  }
  return more_in;
}

void copy_thread::pump_bulk(copy_job& job) {
  if (job.saved.empty()) return stream_block(job, nullptr);
  submit(job, std::move(job.saved.front()));
  job.saved.pop_front();
}

bool copy_thread::save_ahead(copy_job& job) {
  if (!job.must_hurry()) {
    job.save_into.reset();  // others may have what is left of it
    return false;
  }
  if (!job.save_into || job.save_into->room() < block_pages) {
    // What is in flight may have to be captured, all of it, if the disk is stuck.
    job.save_into = save_buffer::allocate(faults_.pool(), job.epoch->vm, job.bulk_bytes / page_size);
    if (!job.save_into) return false;
  }
  const std::size_t before = job.saved_pages;
  stream_block(job, job.save_into);
  if (before / slice_pages != job.saved_pages / slice_pages || job.bulk_complete()) faults_.notify_settled();
  return true;
}

void copy_thread::stream_block(copy_job& job, const std::shared_ptr<save_buffer>& into) {
  const std::size_t pages = job.epoch->states.size();
  job.block_streamed();
  if (!job.hot_blocks.empty()) {
    const std::size_t first = job.hot_blocks.back() * block_pages;
    job.hot_blocks.pop_back();
    stream(job, first, std::min(pages, first + block_pages), into);
    return;
  }
  job.next_page = stream(job, job.next_page, std::min(pages, job.next_page + block_pages), into);
}

std::size_t copy_thread::stream(copy_job& job, std::size_t page, std::size_t end,
                                const std::shared_ptr<save_buffer>& into) {
  write_operation run;  // pages with content that end at `page`
  const auto write_run = [&] {
    if (run.pages == 0) return;
    if (into) {
      const std::size_t saved = run.pages - run.captures.size();
      run.saved = into;
      job.saved.push_back(std::move(run));
      job.saved_pages += saved;
      counters_.saved_ahead_pages.fetch_add(saved, std::memory_order_relaxed);
    } else {
      submit(job, std::move(run));
    }
    run = {};
  };
  while (page < end) {
    auto data = job.next_data(page);
    if (!data) {
      fail(job, std::move(data).error());
      break;
    }
    if (*data > page) {
      write_run();
      job.skip_hole(page, *data);
      page = *data;
      continue;
    }
    if (const std::byte* const content = take_page(job, page, into.get(), run)) {
      run.append(page, content);
    } else {
      write_run();
    }
    ++page;
  }
  write_run();
  return page;
}

const std::byte* copy_thread::take_page(copy_job& job, std::size_t page, save_buffer* into, write_operation& run) {
  page_states& states = job.epoch->states;
  if (states.claim(page)) {
    const std::byte* const in_ram = job.epoch->memory->data() + page * page_size;
    if (!is_zero_page({in_ram, page_size})) return into ? save_page(job, page, *into) : in_ram;
    if (states.settle(page)) {
      ++job.summary.zero_pages;
      job.settle_pages(1);
    }
    return nullptr;
  }
  const auto captured = job.waiting.find(page);
  if (captured == job.waiting.end()) return nullptr;
  bounce_buffer* const buffer = captured->second;
  job.waiting.erase(captured);
  if (is_zero_page(buffer->bytes())) {
    settle_capture(job, buffer);
    return nullptr;
  }
  run.captures.push_back({buffer});
  return buffer->data;
}

const std::byte* copy_thread::save_page(copy_job& job, std::size_t page, save_buffer& into) {
  const std::byte* const saved = into.append(job.epoch->memory->data() + page * page_size);
  if (job.epoch->states.settle(page)) return saved;
  into.drop_last();
  return nullptr;
}

void copy_thread::submit(copy_job& job, write_operation operation) {
  job.in_flight.push_back(std::move(operation));
  write_operation& kept = job.in_flight.back();
  kept.job = &job;
  kept.self = std::prev(job.in_flight.end());
  const std::uint64_t size = size_of(kept.parts);
  if (kept.is_bulk()) {
    ++job.bulk_writes;
    job.bulk_bytes += size;
  } else {
    ++job.capture_writes;
  }
  const auto now = engine_clock::now();
  job.limit.spend(size, now);
  host_limit_.spend(size, now);
  queue_write(kept);
  if (!kept.is_bulk()) return;
  // While the disk is at it. Of pages in RAM, only used if they are still protected when the write is through.
  ::io_uring_submit(&ring_);
  std::size_t page = kept.first_page;
  for (const iovec& part : kept.parts) {
    const auto* const content = static_cast<const std::byte*>(part.iov_base);
    for (std::size_t at = 0; at < part.iov_len; at += page_size) {
      job.digests[page++] = page_digest({content + at, page_size});
    }
  }
}

io_uring_sqe* copy_thread::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
  while (entry == nullptr) {  // the submission queue is full: hand it over
    ::io_uring_submit(&ring_);
    entry = ::io_uring_get_sqe(&ring_);
  }
  return entry;
}

void copy_thread::queue_write(write_operation& operation) {
  io_uring_sqe* const entry = next_entry();
  operation.is_direct = operation.job->is_direct;
  ::io_uring_prep_writev(entry, operation.job->image.get(), operation.parts.data(),
                         static_cast<unsigned>(operation.parts.size()), operation.offset);
  if (operation.job->submission_may_block) ::io_uring_sqe_set_flags(entry, IOSQE_ASYNC);
  ::io_uring_sqe_set_data(entry, &operation);
}

void copy_thread::handle(io_uring_cqe* completion) {
  auto* const operation = static_cast<write_operation*>(::io_uring_cqe_get_data(completion));
  const int outcome = completion->res;
  ::io_uring_cqe_seen(&ring_, completion);
  if (operation == nullptr) {
    tasks_.clear_wakeups();
    return listen_for_wakeup();
  }
  copy_job& job = *operation->job;
  const bool retry = outcome == -EAGAIN || outcome == -EINTR;
  if (outcome == -EINVAL && operation->is_direct && job.stage == job_stage::copying && !job.failure) {
    job.is_direct = false;  // not on this file system
    set_direct(job.image.get(), false);
    return queue_write(*operation);
  }
  if (outcome <= 0 && !retry) {
    const int code = outcome == 0 ? EIO : -outcome;
    fail(job, errno_error("write the memory image at offset " + std::to_string(operation->offset), code));
  } else if (job.stage == job_stage::copying) {
    if (!retry) {
      counters_.written_bytes.fetch_add(static_cast<std::uint64_t>(outcome), std::memory_order_relaxed);
      job.summary.written_bytes += static_cast<std::uint64_t>(outcome);
      if (operation->is_bulk()) job.bulk_bytes -= static_cast<std::uint64_t>(outcome);
      advance(*operation, static_cast<std::uint64_t>(outcome));
    }
    if (!operation->parts.empty()) return queue_write(*operation);
  }
  operation_done(*operation);
}

void copy_thread::operation_done(write_operation& operation) {
  copy_job& job = *operation.job;
  if (operation.is_bulk()) {
    --job.bulk_writes;
    job.bulk_bytes -= size_of(operation.parts);  // of a failed one
  } else {
    --job.capture_writes;
  }
  const write_operation ended = std::move(operation);
  job.in_flight.erase(ended.self);
  if (job.stage != job_stage::copying) {
    release(ended.captures);
    return release(ended.overwrites);
  }
  for (const capture_write& each : ended.captures) settle_capture(job, each.buffer);
  std::size_t settled = 0;
  for (std::size_t page = ended.first_page; page < ended.first_page + ended.pages; ++page) {
    if (ended.saved || job.epoch->states.settle(page)) ++settled;
  }
  if (ended.saved) settled -= ended.captures.size();
  job.summary.bulk_pages += settled;
  counters_.bulk_pages.fetch_add(settled, std::memory_order_relaxed);
  const std::size_t before = job.settled;
  job.settle_pages(settled);
  // After the last page of RAM is claimed, each write from there may be what a slice waits for.
  const bool may_be_last = !ended.saved && settled > 0 && job.bulk_complete();
  if (before / slice_pages != job.settled / slice_pages || may_be_last) faults_.notify_settled();
  job.captures.insert(job.captures.end(), ended.overwrites.begin(), ended.overwrites.end());
}

void copy_thread::take_captures(copy_job& job) {
  std::vector<capture_write> ready;
  for (bounce_buffer *buffer = job.epoch->captures.take_all(), *next = nullptr; buffer != nullptr; buffer = next) {
    next = buffer->next;
    const bool was_in_flight = job.epoch->states.at(buffer->page) == page_state::captured_in_flight;
    if (!was_in_flight && buffer->page >= job.next_page) {
      job.waiting.emplace(buffer->page, buffer);
      continue;
    }
    const auto holds_page = [&](const write_operation& operation) {
      return buffer->page - operation.first_page < operation.pages;
    };
    const auto writing =
        was_in_flight ? std::find_if(job.in_flight.begin(), job.in_flight.end(), holds_page) : job.in_flight.end();
    (writing == job.in_flight.end() ? ready : writing->overwrites).push_back({buffer, was_in_flight});
  }
  std::sort(ready.begin(), ready.end(), [](const capture_write& left, const capture_write& right) {
    return left.buffer->page < right.buffer->page;
  });
  job.captures.insert(job.captures.end(), ready.begin(), ready.end());
  const bool stream_stands = job.bulk_complete() || job.epoch->waits_for_limit.load(std::memory_order_relaxed);
  if (stream_stands || job.waiting.size() * most_waiting_of_free > faults_.pool().free_pages()) {
    for (const auto& [page, buffer] : std::exchange(job.waiting, {})) job.captures.push_back({buffer});
  }
}

void copy_thread::write_captures(copy_job& job) {
  write_operation operation;
  const auto flush = [&] {
    if (!operation.parts.empty()) submit(job, std::exchange(operation, {}));
  };
  while (!job.captures.empty() && job.capture_writes < max_capture_writes) {
    const capture_write next = job.captures.front();
    job.captures.pop_front();
    const bounce_buffer& buffer = *next.buffer;
    job.digests[buffer.page] = page_digest(buffer.bytes());
    if (!next.must_write && is_zero_page(buffer.bytes())) {
      settle_capture(job, next.buffer);
      continue;
    }
    const std::uint64_t offset = buffer.page * page_size;
    if (operation.parts.size() == block_pages || operation.offset + operation.parts.size() * page_size != offset)
      flush();
    if (operation.parts.empty()) operation.offset = offset;
    operation.parts.push_back({buffer.data, page_size});
    operation.captures.push_back(next);
  }
  flush();
}

void copy_thread::settle_capture(copy_job& job, bounce_buffer* buffer) {
  faults_.pool().release(buffer);
  ++job.summary.captured_pages;
  job.settle_pages(1);
}

void copy_thread::fail(copy_job& job, error reason) {
  if (job.stage == job_stage::copying && !job.failure) job.failure = std::move(reason);
}

void copy_thread::close_finished_jobs() {
  for (auto next = jobs_.begin(); next != jobs_.end();) {
    const auto job = *next++;
    if (job->stage == job_stage::copying && (job->failure || job->settled == job->epoch->states.size())) {
      job->stage = job_stage::detaching;
      job->summary.copy = std::chrono::duration_cast<std::chrono::microseconds>(engine_clock::now() - job->begin);
      faults_.post([this, job] {
        // Asked where it is decided: the epoch may have ended while its last pages were read, which are too new then.
        const auto over = job->epoch->why_over();
        faults_.detach(*job->epoch, [this, job, over] {
          post([job, over] {
            if (job->stage != job_stage::detaching) return;
            job->stage = job_stage::detached;
            if (over && !job->failure) job->failure = over;
          });
        });
      });
    }
    if (job->stage != job_stage::copying) {
      for (const write_operation& operation : std::exchange(job->saved, {})) release(operation.captures);
      job->save_into.reset();
      release(std::exchange(job->captures, {}));
      for (const auto& [page, buffer] : std::exchange(job->waiting, {})) faults_.pool().release(buffer);
    }
    if (job->stage != job_stage::detached || !job->in_flight.empty()) continue;
    jobs_.remove(job);
    release_captures(*job->epoch);
    faults_.post([&faults = faults_] { faults.trim_pool(); });
    if (job->failure) {
      job->done(std::move(*job->failure));
    } else {
      const memory_epoch& epoch = *job->epoch;
      job->summary.faults = epoch.faults.load(std::memory_order_relaxed);
      job->summary.longest_fault = std::chrono::microseconds(epoch.longest_fault_us.load(std::memory_order_relaxed));
      job->summary.prearm = std::chrono::microseconds(epoch.prearm_us.load(std::memory_order_relaxed));
      job->done(copy_result{job->summary, chunk_checksums(job->digests)});
    }
    for (const auto& done : job->when_ended) done();
  }
}

std::shared_ptr<copy_job> copy_thread::job_of(const std::shared_ptr<memory_epoch>& epoch) const {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) { return job->epoch == epoch; });
  return found != jobs_.end() ? *found : nullptr;
}

void copy_thread::end(const std::shared_ptr<memory_epoch>& epoch, const error& reason, std::function<void()> done) {
  const auto job = job_of(epoch);
  if (!job) {
    release_captures(*epoch);
    return done();
  }
  job->when_ended.push_back(std::move(done));
  if (job->stage == job_stage::copying) {
    job->failure = reason;
    job->stage = job_stage::detached;
  }
}

void copy_thread::fail(const std::shared_ptr<memory_epoch>& epoch, const error& reason) {
  if (const auto job = job_of(epoch)) fail(*job, reason);
}

void copy_thread::release_captures(memory_epoch& epoch) {
  for (bounce_buffer* buffer = epoch.captures.take_all(); buffer != nullptr;) {
    bounce_buffer* const next = buffer->next;  // the pool links it anew
    faults_.pool().release(buffer);
    buffer = next;
  }
}

}  // namespace coppice
