// The journal guest: a bare-metal program that writes a journal into its memory as fast as it can (or at a pace), so
// that from any image of its memory one can tell whether it is of one instant. Freestanding: no library, no interrupts,
// no allocation.
#include <cstdint>

#include "vmm/guest/journal_layout.hpp"

namespace {

using coppice::journal::lane_header;
using coppice::journal::pattern;

extern "C" const char trampoline[];
extern "C" const char trampoline_end[];

struct settings {
  std::uint64_t lanes = 1;
  std::uint64_t pages = 4096;  // all lanes together
  std::uint64_t pace_cycles = 0;
  std::uint64_t threshold_cycles = 0;  // 0: found out in the first pass over the pages
  pattern writes = pattern::random;
};
settings chosen;

void out_byte(std::uint16_t port, std::uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

void print(const char* text) {
  for (; *text != 0; ++text) out_byte(0x3f8, static_cast<std::uint8_t>(*text));
}

// Ends the VM (the i8042's reset line): exit code 0 of the VMM, so the message is what tells.
[[noreturn]] void give_up(const char* reason, const char* word) {
  print("journal: ");
  print(reason);
  print(word);
  print("\n");
  out_byte(0x64, 0xfe);
  for (;;) asm volatile("hlt");
}

std::uint64_t read_tsc() {
  std::uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

std::uint64_t read_msr(std::uint32_t number) {
  std::uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

void write_msr(std::uint32_t number, std::uint64_t value) {
  asm volatile("wrmsr"
               :
               : "c"(number), "a"(static_cast<std::uint32_t>(value)), "d"(static_cast<std::uint32_t>(value >> 32)));
}

// If `word` begins with `name`, the rest of it.
const char* value_of(const char* word, const char* name) {
  while (*name != 0) {
    if (*word++ != *name++) return nullptr;
  }
  return word;
}

bool ends_here(char c) {
  return c == 0 || c == ' ';
}

std::uint64_t number(const char* text) {
  std::uint64_t value = 0;
  if (ends_here(*text)) give_up("a number is missing: ", text);
  for (; !ends_here(*text); ++text) {
    if (*text < '0' || *text > '9') give_up("not a number: ", text);
    value = value * 10 + static_cast<std::uint64_t>(*text - '0');
  }
  return value;
}

// Words that do not begin with "journal." are the VMM's or another's: ignored.
void parse_word(const char* word) {
  const char* const name = value_of(word, "journal.");
  if (name == nullptr) return;
  if (const char* lanes = value_of(name, "lanes=")) {
    chosen.lanes = number(lanes);
  } else if (const char* pages = value_of(name, "pages=")) {
    chosen.pages = number(pages);
  } else if (const char* pace = value_of(name, "pace=")) {
    chosen.pace_cycles = number(pace);
  } else if (const char* threshold = value_of(name, "threshold=")) {
    chosen.threshold_cycles = number(threshold);
  } else if (const char* writes = value_of(name, "pattern=")) {
    if (const char* rest = value_of(writes, "random"); rest != nullptr && ends_here(*rest)) {
      chosen.writes = pattern::random;
    } else if (rest = value_of(writes, "sequential"); rest != nullptr && ends_here(*rest)) {
      chosen.writes = pattern::sequential;
    } else if (rest = value_of(writes, "zipf"); rest != nullptr && ends_here(*rest)) {
      chosen.writes = pattern::zipf;
    } else {
      give_up("unknown pattern (random, sequential or zipf): ", writes);
    }
  } else {
    give_up("unknown option (journal.lanes, pages, pattern, pace, threshold): ", word);
  }
}

// The end of the RAM that is reachable: of the e820 entry (20 bytes: start, size, type) that holds the journal.
std::uint64_t end_of_ram(const unsigned char* boot_params) {
  for (unsigned i = 0; i < boot_params[0x1e8]; ++i) {
    std::uint64_t start = 0, size = 0;
    __builtin_memcpy(&start, boot_params + 0x2d0 + i * 20, 8);
    __builtin_memcpy(&size, boot_params + 0x2d0 + i * 20 + 8, 8);
    if (start <= coppice::journal::lanes_address && coppice::journal::lanes_address < start + size) {
      const std::uint64_t end = start + size;
      return end < coppice::journal::identity_mapped_bytes ? end : coppice::journal::identity_mapped_bytes;
    }
  }
  return 0;
}

[[noreturn]] void write_journal(std::uint64_t lane) {
  const std::uint64_t pages = chosen.pages / chosen.lanes;
  const std::uint64_t base = coppice::journal::lanes_address + lane * pages * 4096;
  auto* const header = reinterpret_cast<volatile lane_header*>(coppice::journal::header_address + lane * 4096);
  header->version = coppice::journal::version;
  header->lane = lane;
  header->lanes = chosen.lanes;
  header->pages = pages;
  header->base_address = base;
  header->write_pattern = static_cast<std::uint64_t>(chosen.writes);
  header->pace_cycles = chosen.pace_cycles;
  header->threshold_cycles = chosen.threshold_cycles;
  header->magic = coppice::journal::magic;
  const std::uint64_t begin = read_tsc();
  std::uint64_t last = begin;
  for (std::uint64_t n = 1;; ++n) {
    // n lives in a register, the step in memory: after a restore they agree only if both are of one instant.
    if (header->step != n - 1) header->gaps = header->gaps + 1;
    auto* const page = reinterpret_cast<volatile std::uint64_t*>(
        base + coppice::journal::page_of_step(n, lane, pages, chosen.writes) * 4096);
    page[0] = n;
    page[coppice::journal::words_per_page - 1] = n;
    header->step = n;
    std::uint64_t now = read_tsc();
    const std::uint64_t cycles = now - last;
    if (n == pages && header->threshold_cycles == 0) {
      // Four times a usual step: a machine that emulates its guest takes microseconds for each instruction.
      header->threshold_cycles = 20'000 + chosen.pace_cycles + 4 * ((now - begin) / pages);
    } else if (n > pages && cycles >= header->threshold_cycles) {
      const std::uint64_t count = header->stall_count;
      header->ring[count % coppice::journal::ring_size].at_step = n;
      header->ring[count % coppice::journal::ring_size].cycles = cycles;
      header->stall_count = count + 1;
      if (cycles > header->longest_cycles) header->longest_cycles = cycles;
    }
    while (now - last < chosen.pace_cycles) now = read_tsc();
    last = now;
  }
}

// Starts the other vCPUs through the x2APIC: INIT, then SIPI to the trampoline at 0x10000.
void start_other_vcpus() {
  auto* const to = reinterpret_cast<volatile char*>(0x10000);
  for (const char* from = trampoline; from != trampoline_end; ++from) to[from - trampoline] = *from;
  write_msr(0x1b, read_msr(0x1b) | 0xc00);
  write_msr(0x80f, 0x1ff);
  for (std::uint64_t id = 1; id < chosen.lanes; ++id) {
    write_msr(0x830, (id << 32) | 0x4500);
    for (const std::uint64_t begin = read_tsc(); read_tsc() - begin < 1'000'000;) {
    }
    write_msr(0x830, (id << 32) | 0x4610);
  }
}

}  // namespace

extern "C" [[noreturn]] void ap_main(std::uint64_t lane) {
  write_journal(lane);
}

extern "C" [[noreturn]] void guest_main(const unsigned char* boot_params) {
  std::uint32_t command_line = 0;
  __builtin_memcpy(&command_line, boot_params + 0x228, 4);
  for (const char* at = reinterpret_cast<const char*>(static_cast<std::uintptr_t>(command_line)); *at != 0;) {
    parse_word(at);
    while (!ends_here(*at)) ++at;
    while (*at == ' ') ++at;
  }
  if (chosen.lanes == 0 || chosen.lanes > coppice::journal::max_lanes) give_up("journal.lanes must be 1 to 4", "");
  if (chosen.pages < chosen.lanes) give_up("journal.pages: at least one a lane", "");
  const std::uint64_t end = end_of_ram(boot_params);
  if (end < coppice::journal::lanes_address || chosen.pages > (end - coppice::journal::lanes_address) / 4096) {
    give_up("journal.pages do not fit into RAM (4 MiB of it, and all above 1 GiB, are out of reach)", "");
  }
  print("journal: writing\n");
  if (chosen.lanes > 1) start_other_vcpus();
  write_journal(0);
}
