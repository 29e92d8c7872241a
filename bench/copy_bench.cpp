#include "bench/copy_bench.hpp"

#include <fcntl.h>
#include <liburing.h>

#include <cstring>
#include <future>

#include "base/file.hpp"
#include "bench/local_memory.hpp"
#include "bench/statistics.hpp"
#include "copy_engine/copy_engine.hpp"

namespace coppice::bench {
namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point begin) {
  return std::chrono::duration<double>(clock::now() - begin).count();
}

result<unique_fd> make_image(const std::filesystem::path& path, std::uint64_t size, int flags) {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  auto image = open_file(path, O_RDWR | O_CREAT | O_EXCL | flags, 0600);
  if (!image) return image;
  if (::ftruncate(image->get(), static_cast<off_t>(size)) != 0) return errno_error("set the size of " + path.string());
  return image;
}

result<double> memcpy_seconds(const local_memory& memory, std::span<std::byte> target) {
  const auto begin = clock::now();
  std::memcpy(target.data(), memory.ram->data(), target.size());
  return seconds_since(begin);
}

// Eight writes of 1 MiB in flight, as the engine has.
result<double> direct_seconds(const local_memory& memory, const std::filesystem::path& path) {
  const std::uint64_t size = memory.ram->size();
  auto image = make_image(path, size, O_DIRECT);
  if (!image) return std::move(image).error();
  io_uring ring{};
  if (const int code = ::io_uring_queue_init(8, &ring, 0); code < 0) return errno_error("io_uring_queue_init", -code);
  const auto begin = clock::now();
  std::uint64_t submitted = 0, completed = 0;
  result<void> outcome;
  while (completed < size && outcome) {
    while (submitted < size && submitted - completed < 8 * mib) {
      io_uring_sqe* const entry = ::io_uring_get_sqe(&ring);
      const std::uint64_t length = std::min<std::uint64_t>(mib, size - submitted);
      ::io_uring_prep_write(entry, image->get(), memory.ram->data() + submitted, static_cast<unsigned>(length),
                            submitted);
      submitted += length;
    }
    ::io_uring_submit_and_wait(&ring, 1);
    io_uring_cqe* done = nullptr;
    while (outcome && ::io_uring_peek_cqe(&ring, &done) == 0) {
      if (done->res <= 0) outcome = errno_error("write " + path.string(), done->res == 0 ? EIO : -done->res);
      completed += static_cast<std::uint64_t>(std::max(done->res, 0));
      ::io_uring_cqe_seen(&ring, done);
    }
  }
  const double seconds = seconds_since(begin);
  ::io_uring_queue_exit(&ring);
  if (!outcome) return std::move(outcome).error();
  return seconds;
}

result<double> buffered_seconds(const local_memory& memory, const std::filesystem::path& path) {
  auto image = make_image(path, memory.ram->size(), 0);
  if (!image) return std::move(image).error();
  const auto begin = clock::now();
  COPPICE_TRY(write_all_at(image->get(), {memory.ram->data(), memory.ram->size()}, 0));
  if (::fsync(image->get()) != 0) return errno_error("fsync " + path.string());
  return seconds_since(begin);
}

result<void> wait_for(const std::function<void(copy_session::completion)>& step) {
  std::promise<result<void>> answer;
  step([&answer](result<void> outcome) { answer.set_value(std::move(outcome)); });
  return answer.get_future().get();
}

struct engine_times {
  double prearm = 0, rearm = 0, copy = 0;
};

result<engine_times> engine_seconds(protected_memory& memory, std::uint64_t size, const std::filesystem::path& path) {
  auto image = make_image(path, size, 0);
  if (!image) return std::move(image).error();
  auto session = memory.begin();
  if (!session) return std::move(session).error();
  engine_times times;
  auto begin = clock::now();
  COPPICE_TRY(wait_for([&](auto done) { (*session)->prearm(std::move(done)); }));
  times.prearm = seconds_since(begin);
  begin = clock::now();
  COPPICE_TRY(wait_for([&](auto done) { (*session)->rearm(std::move(done)); }));
  times.rearm = seconds_since(begin);
  begin = clock::now();
  std::promise<result<copy_result>> outcome;
  (*session)->copy(std::move(*image), [&](result<copy_result> copied) { outcome.set_value(std::move(copied)); });
  auto copied = outcome.get_future().get();
  times.copy = seconds_since(begin);
  if (!copied) return std::move(copied).error();
  return times;
}

nlohmann::json throughput(std::uint64_t size, const std::vector<double>& seconds) {
  std::vector<double> rates;
  for (const double each : seconds) rates.push_back(static_cast<double>(size) / each / 1e9);
  return summarize(rates);
}

}  // namespace

result<nlohmann::json> run_copy_bench(const copy_options& options) {
  auto memory = make_local_memory(options.memory_bytes);
  if (!memory) return std::move(memory).error();
  auto engine = create_copy_engine({});
  if (!engine) return std::move(engine).error();
  auto attached = (*engine)->attach(std::move(memory->handover), memory->ram);
  if (!attached) return std::move(attached).error();
  auto target = guest_memory::create("coppice-bench-target", options.memory_bytes);
  if (!target) return std::move(target).error();
  const auto path = options.root / "coppice-bench.image";
  std::vector<double> copies, direct, buffered, prearm, rearm, streamed;
  for (unsigned round = 0; round <= options.rounds; ++round) {
    auto a = memcpy_seconds(*memory, {target->data(), target->size()});
    auto b = direct_seconds(*memory, path);
    auto c = buffered_seconds(*memory, path);
    auto d = engine_seconds(**attached, options.memory_bytes, path);
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    if (!b) return std::move(b).error();
    if (!c) return std::move(c).error();
    if (!d) return std::move(d).error();
    if (round == 0) continue;  // the warm-up: page tables, page cache, the file system's allocator
    copies.push_back(*a);
    direct.push_back(*b);
    buffered.push_back(*c);
    prearm.push_back(d->prearm * 1e6);
    rearm.push_back(d->rearm * 1e6);
    streamed.push_back(d->copy);
  }
  const auto median = [](const std::vector<double>& values) { return summarize(values).median; };
  return nlohmann::json{{"memory_bytes", options.memory_bytes},
                        {"rounds", options.rounds},
                        {"engine_gb_per_s", throughput(options.memory_bytes, streamed)},
                        {"o_direct_gb_per_s", throughput(options.memory_bytes, direct)},
                        {"buffered_fsync_gb_per_s", throughput(options.memory_bytes, buffered)},
                        {"memcpy_gb_per_s", throughput(options.memory_bytes, copies)},
                        {"engine_to_o_direct", median(direct) / median(streamed)},
                        {"engine_to_memcpy", median(copies) / median(streamed)},
                        {"prearm_us", summarize(prearm)},
                        {"rearm_us", summarize(rearm)}};
}

}  // namespace coppice::bench
