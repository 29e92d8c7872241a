#include "journal_guest/journal_oracle.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/fd.hpp"
#include "base/units.hpp"

namespace coppice {
namespace {

using journal::lane_header;

// Lane i's header; nullptr if the memory ends before it or it is none.
const lane_header* header_at(std::span<const std::byte> memory, std::uint64_t lane) {
  const std::uint64_t offset = journal::header_address(lane);
  if (offset + journal::header_stride > memory.size()) return nullptr;
  const auto* header = reinterpret_cast<const lane_header*>(memory.data() + offset);  // page-aligned, plain integers
  return header->magic == journal::magic ? header : nullptr;
}

// A word that the guest may be writing at this moment.
std::uint64_t load(const std::uint64_t& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

result<void> check_header(const lane_header& header, std::uint64_t lane, std::size_t memory_size) {
  const bool fits = header.base <= memory_size && header.pages <= (memory_size - header.base) / page_size;
  if (header.version != journal::layout_version || header.lane != lane || header.lanes == 0 ||
      header.lanes > journal::max_lanes || header.pages == 0 || !fits ||
      header.pattern > static_cast<std::uint64_t>(journal::pattern::zipf)) {
    return error{errc::corrupt, 0, "the journal's header of lane " + std::to_string(lane) + " makes no sense"};
  }
  return {};
}

// The step that each page of the lane must hold: the last one that wrote it, found by walking backwards from the
// image's.
std::vector<std::uint64_t> expected_steps(const lane_header& header) {
  const auto writes = static_cast<journal::pattern>(header.pattern);
  std::vector<std::uint64_t> expected(header.pages, 0);
  std::uint64_t missing = std::min(header.pages, header.step);
  for (std::uint64_t n = header.step; n > 0 && missing > 0; --n) {
    std::uint64_t& page = expected[journal::page_of_step(writes, header.seed, header.lane, header.pages, n)];
    if (page != 0) continue;
    page = n;
    --missing;
  }
  return expected;
}

void check_lane(std::span<const std::byte> memory, const lane_header& header, journal_report& report) {
  const auto expected = expected_steps(header);
  const std::uint64_t next = header.step + 1;
  const std::uint64_t next_page = journal::page_of_step(static_cast<journal::pattern>(header.pattern), header.seed,
                                                        header.lane, header.pages, next);
  for (std::uint64_t page = 0; page < header.pages; ++page) {
    std::uint64_t first = 0, last = 0;
    const std::byte* const at = memory.data() + header.base + page * page_size;
    std::memcpy(&first, at, sizeof first);
    std::memcpy(&last, at + page_size - sizeof last, sizeof last);
    const std::uint64_t wanted = expected[page];
    if (first == wanted && last == wanted) continue;
    if (page == next_page && first == next && (last == wanted || last == next)) continue;
    if (first != last) {
      ++report.torn;
    } else if (first > wanted) {
      ++report.future;
    } else {
      ++report.lost;
    }
  }
  report.pages += header.pages;
  report.steps += header.step;
  report.gaps += header.gaps;
}

}  // namespace

result<journal_report> check_journal_image(std::span<const std::byte> memory) {
  journal_report report;
  const lane_header* const first = header_at(memory, 0);
  if (first == nullptr) return report;
  COPPICE_TRY(check_header(*first, 0, memory.size()));
  report.is_journal = true;
  report.lanes = first->lanes;
  for (std::uint64_t lane = 0; lane < first->lanes; ++lane) {
    const lane_header* const header = header_at(memory, lane);
    if (header == nullptr) continue;  // a vCPU that had not started yet
    COPPICE_TRY(check_header(*header, lane, memory.size()));
    check_lane(memory, *header, report);
  }
  return report;
}

result<journal_report> check_journal_image(int fd, std::uint64_t size) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) return errno_error("size of the image");
  size = std::min(size, static_cast<std::uint64_t>(file.st_size));  // to read a mapping beyond is SIGBUS
  if (size == 0) return journal_report{};
  auto image = mapping::shared(fd, size, PROT_READ);
  if (!image) return std::move(image).error();
  return check_journal_image(std::span<const std::byte>(image->bytes()));
}

double tsc_hertz() {
  static const double hertz = [] {
    const auto begin = std::chrono::steady_clock::now();
    const std::uint64_t first = __rdtsc();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a measurement, not a wait for something
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    return static_cast<double>(__rdtsc() - first) / elapsed.count();
  }();
  return hertz;
}

result<journal_reading> read_journal(std::span<const std::byte> memory, const journal_reading& since) {
  const lane_header* const first = header_at(memory, 0);
  if (first == nullptr) return error{errc::unsupported, 0, "no journal guest is running in this sandbox"};
  journal_reading reading;
  std::uint64_t longest = 0;
  for (std::uint64_t lane = 0; lane < std::min(first->lanes, journal::max_lanes); ++lane) {
    const lane_header* const header = header_at(memory, lane);
    if (header == nullptr) continue;
    reading.steps += load(header->step);
    reading.gaps += load(header->gaps);
    const std::uint64_t count = load(header->stalls);
    reading.stall_count[lane] = count;
    const std::uint64_t oldest = count > journal::stall_ring_size ? count - journal::stall_ring_size : 0;
    for (std::uint64_t i = std::max(oldest, std::min(since.stall_count[lane], count)); i < count; ++i) {
      const std::uint64_t cycles = load(header->ring[i % journal::stall_ring_size].cycles);
      longest = std::max(longest, cycles);
    }
  }
  reading.longest_stall =
      std::chrono::nanoseconds(static_cast<std::int64_t>(static_cast<double>(longest) / tsc_hertz() * 1e9));
  return reading;
}

}  // namespace coppice
