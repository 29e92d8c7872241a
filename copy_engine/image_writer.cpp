#include "copy_engine/image_writer.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/image_digest.hpp"

namespace coppice {
namespace {

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

}  // namespace

image_writer::image_writer(write_queue& queue, write_listener& listener, unique_fd image, std::size_t pages,
                           rate_limit& host_limit, std::uint64_t bytes_per_second, engine_counters& counters)
    : queue_(queue),
      listener_(listener),
      image_(std::move(image)),
      limit_(bytes_per_second),
      host_limit_(host_limit),
      counters_(counters),
      submission_may_block_(is_on_fuse(image_.get())),
      is_direct_(set_direct(image_.get(), true)),
      digests_(pages, zero_page_digest()) {}

void image_writer::submit(write_operation operation) {
  in_flight_.push_back(std::move(operation));
  write_operation& kept = in_flight_.back();
  kept.listener = &listener_;
  kept.self = std::prev(in_flight_.end());
  const std::uint64_t size = kept.size();
  if (kept.is_bulk()) {
    ++bulk_writes_;
    bulk_bytes_ += size;
  } else {
    ++capture_writes_;
  }
  const auto now = engine_clock::now();
  limit_.spend(size, now);
  host_limit_.spend(size, now);
  push(kept);
  if (kept.is_bulk()) queue_.submit();
  digest(kept);
}

void image_writer::push(write_operation& operation) {
  operation.is_direct = is_direct_;
  queue_.push(image_.get(), operation, submission_may_block_);
}

// While the disk is at it. Of pages in RAM, only used if they are still protected when the write is through.
void image_writer::digest(const write_operation& operation) {
  std::size_t page = operation.offset / page_size;
  for (const iovec& part : operation.parts) {
    const auto* const content = static_cast<const std::byte*>(part.iov_base);
    for (std::size_t at = 0; at < part.iov_len; at += page_size) {
      digests_[page++] = page_digest({content + at, page_size});
    }
  }
}

std::optional<image_writer::ended_write> image_writer::completed(write_operation& operation, int outcome,
                                                                 bool is_wanted) {
  const bool retry = outcome == -EAGAIN || outcome == -EINTR;
  std::optional<error> failure;
  if (outcome == -EINVAL && operation.is_direct && is_wanted) {
    is_direct_ = false;  // not on this file system
    set_direct(image_.get(), false);
    push(operation);
    return std::nullopt;
  }
  if (outcome <= 0 && !retry) {
    const int code = outcome == 0 ? EIO : -outcome;
    failure = errno_error("write the memory image at offset " + std::to_string(operation.offset), code);
  } else if (is_wanted) {
    if (!retry) {
      const auto written = static_cast<std::uint64_t>(outcome);
      counters_.written_bytes.fetch_add(written, std::memory_order_relaxed);
      written_bytes_ += written;
      if (operation.is_bulk()) bulk_bytes_ -= written;
      operation.advance(written);
    }
    if (!operation.parts.empty()) {
      push(operation);
      return std::nullopt;
    }
  }
  if (operation.is_bulk()) {
    --bulk_writes_;
    bulk_bytes_ -= operation.size();  // of a failed one
  } else {
    --capture_writes_;
  }
  const auto self = operation.self;
  ended_write ended{std::move(operation), std::move(failure)};
  in_flight_.erase(self);
  return ended;
}

write_operation* image_writer::bulk_write_of(std::size_t page) noexcept {
  const auto found = std::find_if(in_flight_.begin(), in_flight_.end(),
                                  [page](const write_operation& each) { return each.covers(page); });
  return found != in_flight_.end() ? &*found : nullptr;
}

std::optional<std::chrono::nanoseconds> image_writer::time_to_bulk_write() {
  if (bulk_bytes_ >= max_bulk_bytes || bulk_writes_ >= max_bulk_writes) return std::nullopt;
  const auto now = engine_clock::now();
  return std::max(limit_.wait_at(now), host_limit_.wait_at(now));
}

}  // namespace coppice
