#include "bench/copy_bench.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/file.hpp"
#include "base/units.hpp"
#include "bench/engine_run.hpp"
#include "bench/local_memory.hpp"
#include "bench/parsing.hpp"
#include "bench/raw_copy.hpp"

namespace coppice::bench {
namespace {

constexpr double direct_target = 0.9;
constexpr double memcpy_target = 0.8;

std::string unique_name(const char* what) {
  return "coppice-bench-" + std::to_string(::getpid()) + "-" + what;
}

// One memory size: what is prepared once, and what each round measures.
class copy_cell {
 public:
  copy_cell(std::uint64_t size, const copy_options& options) : size_(size), options_(options) {}
  result<void> prepare();
  result<void> measure();  // each round
  void start_over() { figures_ = {}; }
  result<void> verify();
  void add_to(report& to) const;

 private:
  struct measured {
    std::vector<double> memcpy, direct, direct_digests, buffered, buffered_sync, pwrite, pwrite_digests;  // GB/s
    std::vector<double> engine_disk, engine_tmpfs_reused, engine_tmpfs_new;                               // GB/s
    // Of the same round: the engine to what writes the same bytes without it, and these to memcpy.
    std::vector<double> to_direct, to_direct_digests, to_buffered, to_memcpy, to_pwrite, to_pwrite_digests;
    std::vector<double> pwrite_to_memcpy;
    std::vector<double> prearm_us, rearm_us;
  };

  double rate(double seconds) const { return static_cast<double>(size_) / seconds / 1e9; }
  std::span<const std::byte> ram() const { return {memory_->ram->data(), size_}; }
  result<double> engine_seconds(result<unique_fd> image);
  // Pages of `file` that differ from the RAM.
  result<std::uint64_t> bad_pages(const std::filesystem::path& path) const;

  const std::uint64_t size_;
  const copy_options& options_;
  std::optional<local_memory> memory_;
  std::unique_ptr<copy_engine> engine_;
  std::unique_ptr<protected_memory> attached_;
  mapping reused_;  // of the tmpfs file that memcpy writes to
  measured figures_;
  std::uint64_t bad_pages_ = 0;
  temporary_file on_disk_{options_.root / unique_name("image")};
  temporary_file memcpy_target_{"/dev/shm/" + unique_name("memcpy")};
  temporary_file engine_target_{"/dev/shm/" + unique_name("reused")};
  temporary_file new_target_{"/dev/shm/" + unique_name("new")};
};

result<void> copy_cell::prepare() {
  auto memory = make_local_memory(size_);
  if (!memory) return std::move(memory).error();
  memory_ = *std::move(memory);
  auto engine = create_copy_engine({});
  if (!engine) return std::move(engine).error();
  engine_ = *std::move(engine);
  auto attached = engine_->attach(std::move(memory_->handover), memory_->ram);
  if (!attached) return std::move(attached).error();
  attached_ = *std::move(attached);
  for (const temporary_file* file : {&memcpy_target_, &engine_target_}) {
    auto target = create_image(file->path(), size_);
    if (!target) return std::move(target).error();
    if (const int code = ::posix_fallocate(target->get(), 0, static_cast<off_t>(size_)); code != 0)
      return errno_error("allocate " + file->path().string(), code);
    if (file != &memcpy_target_) continue;
    auto view = mapping::shared(target->get(), size_, PROT_READ | PROT_WRITE);
    if (!view) return std::move(view).error();
    reused_ = *std::move(view);
  }
  return {};
}

result<double> copy_cell::engine_seconds(result<unique_fd> image) {
  if (!image) return std::move(image).error();
  auto times = run_engine(*attached_, *std::move(image));
  if (!times) return std::move(times).error();
  figures_.prearm_us.push_back(times->prearm * 1e6);
  figures_.rearm_us.push_back(times->rearm * 1e6);
  return times->copy;
}

result<void> copy_cell::measure() {
  const double copied = memcpy_seconds(ram(), reused_.bytes());
  const auto pwritten = pwrite_seconds(ram(), engine_target_.path(), beside::nothing);
  if (!pwritten) return pwritten.error();
  const auto pwritten_digests = pwrite_seconds(ram(), engine_target_.path(), beside::digests);
  if (!pwritten_digests) return pwritten_digests.error();
  auto reused = engine_seconds(open_file(engine_target_.path(), O_RDWR));
  if (!reused) return std::move(reused).error();
  auto direct = direct_seconds(ram(), on_disk_.path(), beside::nothing);
  if (!direct) return std::move(direct).error();
  auto direct_digests = direct_seconds(ram(), on_disk_.path(), beside::digests);
  if (!direct_digests) return std::move(direct_digests).error();
  auto disk = engine_seconds(create_image(on_disk_.path(), size_));
  if (!disk) return std::move(disk).error();
  auto buffered = buffered_seconds(ram(), on_disk_.path());
  if (!buffered) return std::move(buffered).error();
  auto fresh = engine_seconds(create_image(new_target_.path(), size_));
  if (!fresh) return std::move(fresh).error();
  figures_.memcpy.push_back(rate(copied));
  figures_.pwrite.push_back(rate(*pwritten));
  figures_.pwrite_digests.push_back(rate(*pwritten_digests));
  figures_.direct.push_back(rate(*direct));
  figures_.direct_digests.push_back(rate(*direct_digests));
  figures_.buffered.push_back(rate(buffered->write));
  figures_.buffered_sync.push_back(rate(buffered->write_and_sync));
  figures_.engine_disk.push_back(rate(*disk));
  figures_.engine_tmpfs_reused.push_back(rate(*reused));
  figures_.engine_tmpfs_new.push_back(rate(*fresh));
  figures_.to_direct.push_back(*direct / *disk);
  figures_.to_buffered.push_back(buffered->write_and_sync / *disk);
  figures_.to_memcpy.push_back(copied / *reused);
  figures_.to_direct_digests.push_back(*direct_digests / *disk);
  figures_.to_pwrite.push_back(*pwritten / *reused);
  figures_.to_pwrite_digests.push_back(*pwritten_digests / *reused);
  figures_.pwrite_to_memcpy.push_back(copied / *pwritten);
  return {};
}

result<std::uint64_t> copy_cell::bad_pages(const std::filesystem::path& path) const {
  auto file = open_file(path, O_RDONLY);
  if (!file) return std::move(file).error();
  auto view = mapping::shared(file->get(), size_, PROT_READ);
  if (!view) return std::move(view).error();
  std::uint64_t bad = 0;
  for (std::uint64_t at = 0; at < size_; at += page_size) {
    if (std::memcmp(view->data() + at, ram().data() + at, page_size) != 0) ++bad;
  }
  return bad;
}

result<void> copy_cell::verify() {
  // The last ones there have bytes of other writers.
  for (const temporary_file* file : {&on_disk_, &engine_target_}) {
    auto image = create_image(file->path(), size_);
    if (!image) return std::move(image).error();
    if (auto times = run_engine(*attached_, *std::move(image)); !times) return std::move(times).error();
  }
  for (const temporary_file* file : {&on_disk_, &engine_target_, &new_target_}) {
    auto bad = bad_pages(file->path());
    if (!bad) return std::move(bad).error();
    bad_pages_ += *bad;
  }
  return {};
}

void copy_cell::add_to(report& to) const {
  const std::string cell = short_size(size_);
  const measured& f = figures_;
  const auto add_baseline = [&](const char* name, const std::vector<double>& values, const char* note) {
    to.add({cell, name, better::higher_baseline, values, std::nullopt, note});
  };
  to.add({cell, "engine_to_disk_gb_per_s", better::higher, f.engine_disk});
  add_baseline("o_direct_gb_per_s", f.direct,
               "1 MiB writes, 8 in flight, one thread: the engine's pattern, no digests");
  add_baseline("o_direct_digests_gb_per_s", f.direct_digests, "the same, the thread looks for zero pages and digests");
  to.add({cell, "engine_to_o_direct_ratio", better::higher, f.to_direct, at_least(direct_target)});
  to.add({cell, "engine_to_o_direct_digests_ratio", better::higher, f.to_direct_digests});
  to.add({cell, "buffered_gb_per_s", better::higher_baseline, f.buffered});
  to.add({cell, "buffered_fsync_gb_per_s", better::higher_baseline, f.buffered_sync});
  to.add({cell, "engine_to_buffered_fsync_ratio", better::higher, f.to_buffered});
  to.add({cell, "engine_to_reused_tmpfs_gb_per_s", better::higher, f.engine_tmpfs_reused});
  to.add({cell, "memcpy_to_reused_tmpfs_gb_per_s", better::higher_baseline, f.memcpy});
  add_baseline("pwrite_to_reused_tmpfs_gb_per_s", f.pwrite, "pwrite(2) of 1 MiB each, one thread, to the same pages");
  add_baseline("pwrite_digests_to_reused_tmpfs_gb_per_s", f.pwrite_digests, "the same, with zero pages and digests");
  to.add({cell, "engine_to_memcpy_ratio", better::higher, f.to_memcpy, at_least(memcpy_target)});
  add_baseline("pwrite_to_memcpy_ratio", f.pwrite_to_memcpy, "the floor of any engine that writes by system calls");
  to.add({cell, "engine_to_pwrite_ratio", better::higher, f.to_pwrite});
  to.add({cell, "engine_to_pwrite_digests_ratio", better::higher, f.to_pwrite_digests});
  to.add({cell, "engine_to_new_tmpfs_gb_per_s", better::higher, f.engine_tmpfs_new});
  to.add({cell, "prearm_us", better::lower, f.prearm_us});
  to.add({cell, "rearm_untouched_us", better::lower, f.rearm_us});
  to.add({cell, "bad_pages", better::lower, {static_cast<double>(bad_pages_)}, never()});
}

}  // namespace

result<void> run_copy_bench(const copy_options& options, report& to) {
  for (const std::uint64_t size : options.memory_bytes) {
    copy_cell cell(size, options);
    COPPICE_TRY(cell.prepare());
    COPPICE_TRY(cell.measure());  // the warm-up: page tables, page cache, the file system's allocator
    cell.start_over();
    for (unsigned round = 0; round < options.rounds; ++round) COPPICE_TRY(cell.measure());
    COPPICE_TRY(cell.verify());
    cell.add_to(to);
  }
  return {};
}

}  // namespace coppice::bench
