#include "bench/raw_copy.hpp"

#include <fcntl.h>
#include <liburing.h>

#include <algorithm>
#include <cstring>

#include "base/file.hpp"
#include "base/image_digest.hpp"
#include "base/units.hpp"
#include "bench/engine_run.hpp"

namespace coppice::bench {
namespace {

constexpr std::uint64_t write_bytes = 1 * mib;
constexpr unsigned writes_in_flight = 8;

class uring {
 public:
  uring() = default;
  uring(const uring&) = delete;
  uring& operator=(const uring&) = delete;
  ~uring() {
    if (ready_) ::io_uring_queue_exit(&ring_);
  }
  result<void> open() {
    const int code = ::io_uring_queue_init(writes_in_flight, &ring_, 0);
    if (code < 0) return errno_error("io_uring_queue_init", -code);
    ready_ = true;
    return {};
  }
  io_uring* get() { return &ring_; }

 private:
  io_uring ring_{};
  bool ready_ = false;
};

void look_at(std::span<const std::byte> bytes, beside what) {
  if (what == beside::nothing) return;
  [[maybe_unused]] volatile std::uint64_t kept = 0;  // so that it is computed
  for (; bytes.size() >= page_size; bytes = bytes.subspan(page_size)) {
    const auto page = bytes.first(page_size);
    kept = is_zero_page(page) ? zero_page_digest() : page_digest(page);
  }
}

}  // namespace

double memcpy_seconds(std::span<const std::byte> source, std::span<std::byte> target) {
  const auto begin = bench_clock::now();
  std::memcpy(target.data(), source.data(), source.size());
  return seconds_since(begin);
}

result<double> direct_seconds(std::span<const std::byte> source, const std::filesystem::path& path, beside what) {
  auto image = create_image(path, source.size(), O_DIRECT);
  if (!image) return std::move(image).error();
  uring ring;
  COPPICE_TRY(ring.open());
  const auto begin = bench_clock::now();
  std::uint64_t submitted = 0, completed = 0;
  while (completed < source.size()) {
    while (submitted < source.size() && submitted - completed < writes_in_flight * write_bytes) {
      io_uring_sqe* const entry = ::io_uring_get_sqe(ring.get());
      if (entry == nullptr) break;
      const auto length = static_cast<unsigned>(std::min<std::uint64_t>(write_bytes, source.size() - submitted));
      ::io_uring_prep_write(entry, image->get(), source.data() + submitted, length, submitted);
      entry->user_data = length;
      ::io_uring_submit(ring.get());
      look_at(source.subspan(submitted, length), what);
      submitted += length;
    }
    ::io_uring_submit_and_wait(ring.get(), 1);
    io_uring_cqe* done = nullptr;
    while (::io_uring_peek_cqe(ring.get(), &done) == 0) {
      const int written = done->res;
      const bool whole = written > 0 && static_cast<std::uint64_t>(written) == done->user_data;
      ::io_uring_cqe_seen(ring.get(), done);
      if (!whole) return errno_error("write " + path.string(), written < 0 ? -written : EIO);
      completed += static_cast<std::uint64_t>(written);
    }
  }
  return seconds_since(begin);
}

result<double> pwrite_seconds(std::span<const std::byte> source, const std::filesystem::path& path, beside what) {
  auto file = open_file(path, O_RDWR);
  if (!file) return std::move(file).error();
  const auto begin = bench_clock::now();
  for (std::uint64_t at = 0; at < source.size(); at += write_bytes) {
    const auto chunk = source.subspan(at, std::min<std::uint64_t>(write_bytes, source.size() - at));
    COPPICE_TRY(write_all_at(file->get(), chunk, at));
    look_at(chunk, what);
  }
  return seconds_since(begin);
}

result<buffered_times> buffered_seconds(std::span<const std::byte> source, const std::filesystem::path& path) {
  auto image = create_image(path, source.size());
  if (!image) return std::move(image).error();
  buffered_times times;
  const auto begin = bench_clock::now();
  COPPICE_TRY(write_all_at(image->get(), source, 0));
  times.write = seconds_since(begin);
  if (::fsync(image->get()) != 0) return errno_error("fsync " + path.string());
  times.write_and_sync = seconds_since(begin);
  return times;
}

}  // namespace coppice::bench
