// The journal guest: boots like a 64-bit Linux kernel in coppice-vmm and in Firecracker, and writes its journal
// (journal_layout.hpp) for ever, one lane per vCPU. It drives no device but the serial port, and takes no interrupt but
// that of the timer that ends its rests.
#include "journal_guest/journal_options.hpp"

using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

extern "C" {
extern const char ap_trampoline[], ap_trampoline_end[], ap_cr3[], ap_stack[], exception_stubs[], timer_interrupt[];
[[noreturn]] void guest_main(const uint8_t* boot_params);
[[noreturn]] void ap_main();
[[noreturn]] void exception_main(uint64_t vector, const uint64_t* frame);

// The compiler may call these even for freestanding code.
int memcmp(const void* a, const void* b, std::size_t size) {
  const auto* x = static_cast<const uint8_t*>(a);
  const auto* y = static_cast<const uint8_t*>(b);
  for (std::size_t i = 0; i < size; ++i) {
    if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
  }
  return 0;
}
void* memchr(const void* in, int value, std::size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(in);
  for (std::size_t i = 0; i < size; ++i) {
    if (bytes[i] == static_cast<uint8_t>(value)) return const_cast<uint8_t*>(bytes + i);
  }
  return nullptr;
}
void* memset(void* to, int value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) static_cast<volatile uint8_t*>(to)[i] = static_cast<uint8_t>(value);
  return to;
}
}

namespace {

using namespace coppice::journal;

// The step counter. It must not live in memory, or a restore could not tell memory and registers apart: r15 is reserved
// for it (-ffixed-r15).
register uint64_t next_step asm("r15");

void out_byte(uint16_t port, uint8_t value) {
  asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
uint64_t read_tsc() {
  uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
  return (uint64_t{high} << 32) | low;
}
uint64_t read_msr(uint32_t index) {
  uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return (uint64_t{high} << 32) | low;
}
void write_msr(uint32_t index, uint64_t value) {
  asm volatile("wrmsr" ::"c"(index), "a"(static_cast<uint32_t>(value)), "d"(static_cast<uint32_t>(value >> 32))
               : "memory");
}
struct cpuid_registers {
  uint32_t a, b, c, d;
};
cpuid_registers cpuid(uint32_t leaf) {
  cpuid_registers r;
  asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
  return r;
}

// Guest memory at a fixed address.
template <class T>
T* at(uint64_t address) {
  asm("" : "+r"(address));  // not a constant to the compiler: it would warn of an array of size 0
  return reinterpret_cast<T*>(address);
}
template <class T>
T load(const uint8_t* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

void print(std::string_view text) {
  for (const char c : text) out_byte(0x3f8, static_cast<uint8_t>(c));
}
void print_number(uint64_t value, uint64_t base) {
  char digits[64];
  std::size_t used = sizeof digits;
  do {
    digits[--used] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  print({digits + used, sizeof digits - used});
}

[[noreturn]] void halt() {
  for (;;) asm volatile("cli; hlt");
}

// Ends the VM through the keyboard controller's reset line, as Linux does with reboot=k.
[[noreturn]] void give_up(std::string_view why, std::string_view word = {}) {
  print("journal: cannot start: ");
  print(why);
  if (!word.empty()) {
    print(": ");
    print(word);
  }
  print("\n");
  out_byte(0x64, 0xfe);
  halt();
}

struct idt_entry {
  uint64_t low, high;
};
constexpr uint64_t timer_vector = 32;
alignas(16) idt_entry idt[timer_vector + 1];
struct [[gnu::packed]] table_pointer {
  uint16_t limit;
  uint64_t base;
};

void load_idt() {
  const table_pointer pointer{sizeof idt - 1, reinterpret_cast<uint64_t>(idt)};
  asm volatile("lidt %0" ::"m"(pointer));
}

void set_up_exceptions() {
  for (uint64_t i = 0; i <= timer_vector; ++i) {
    const uint64_t handler = i == timer_vector ? reinterpret_cast<uint64_t>(timer_interrupt)
                                               : reinterpret_cast<uint64_t>(exception_stubs) + i * 16;
    idt[i].low = (handler & 0xffff) | (8ULL << 16) | (0x8eULL << 40) | ((handler & 0xffff0000) << 32);
    idt[i].high = handler >> 32;
  }
  load_idt();
}

// Firecracker maps the first GiB only. These map four, for working sets that need more.
alignas(page_bytes) uint64_t pml4[512];
alignas(page_bytes) uint64_t pdpt[512];
alignas(page_bytes) uint64_t directories[4][512];

void map_four_gib() {
  for (uint64_t i = 0; i < 4 * 512; ++i) directories[i / 512][i % 512] = (i << 21) | 0x83;
  for (uint64_t i = 0; i < 4; ++i) pdpt[i] = reinterpret_cast<uint64_t>(directories[i]) | 3;
  pml4[0] = reinterpret_cast<uint64_t>(pdpt) | 3;
  asm volatile("mov %0, %%cr3" ::"r"(reinterpret_cast<uint64_t>(pml4)) : "memory");
}

// End of the RAM that begins at 1 MiB, by the boot_params' e820 table.
uint64_t ram_end(const uint8_t* boot_params) {
  const uint8_t count = boot_params[0x1e8];
  for (unsigned i = 0; i < count; ++i) {
    const uint8_t* const entry = boot_params + 0x2d0 + 20 * i;
    const auto start = load<uint64_t>(entry), size = load<uint64_t>(entry + 8);
    if (load<uint32_t>(entry + 16) == 1 && start <= 0x100000 && start + size > 0x100000) return start + size;
  }
  return 0;
}

std::string_view command_line(const uint8_t* boot_params) {
  const char* const text = at<const char>(load<uint32_t>(boot_params + 0x228));
  std::size_t length = 0;
  while (length < 4096 && text[length] != '\0') ++length;
  return {text, length};
}

// Enabled processors of the MP table (Intel MultiProcessor Specification 1.4), which VMMs put at 0x9fc00.
uint64_t processor_count() {
  const uint8_t* const floating = at<const uint8_t>(0x9fc00);
  if (load<uint32_t>(floating) != 0x5f504d5f) return 1;  // "_MP_"
  const uint8_t* const table = at<const uint8_t>(load<uint32_t>(floating + 4));
  const auto entries = load<uint16_t>(table + 34);
  uint64_t processors = 0;
  const uint8_t* entry = table + 44;
  for (unsigned i = 0; i < entries; ++i) {
    if (*entry == 0 && (entry[3] & 1) != 0) ++processors;
    entry += *entry == 0 ? 20 : 8;
  }
  return processors == 0 ? 1 : processors;
}

// As KVM's paravirtual clock describes it; 0 if there is none.
uint64_t tsc_khz() {
  alignas(page_bytes) static volatile uint32_t clock[8];
  const cpuid_registers vendor = cpuid(0x40000000);
  if (vendor.b != 0x4b4d564b || (cpuid(0x40000001).a & 8) == 0) return 0;  // "KVMK", CLOCKSOURCE2
  write_msr(0x4b564d01, reinterpret_cast<uint64_t>(clock) | 1);
  const uint64_t multiplier = clock[6];
  const auto shift = static_cast<int8_t>(clock[7] & 0xff);
  write_msr(0x4b564d01, 0);
  if (multiplier == 0) return 0;
  // nanoseconds = (cycles << shift) * multiplier >> 32
  const uint64_t khz = (1000000ULL << 32) / multiplier;
  return shift < 0 ? khz << -shift : khz >> shift;
}

uint64_t cycles_per_us(uint64_t khz) {
  return khz == 0 ? 2000 : khz / 1000;
}

void note_stall(volatile lane_header& header, uint64_t start, uint64_t cycles) {
  if (header.reset_request != header.reset_done) {
    header.longest_stall = 0;
    header.reset_done = header.reset_request;
  }
  if (cycles > header.longest_stall) header.longest_stall = cycles;
  if (cycles <= header.threshold_cycles) return;
  volatile stall& slot = header.ring[header.stalls % stall_ring_size];
  slot.start_tsc = start;
  slot.cycles = cycles;
  header.stalls = header.stalls + 1;
}

// The local APIC's timer, one-shot, in x2APIC mode. The old interrupt controllers are kept quiet.
void set_up_timer() {
  out_byte(0x21, 0xff);
  out_byte(0xa1, 0xff);
  write_msr(0x1b, read_msr(0x1b) | 0xc00);  // x2APIC mode
  write_msr(0x80f, 0x1ff);                  // spurious vector: enables the APIC
  write_msr(0x83e, 0xb);                    // divide by 1
  write_msr(0x832, timer_vector);
}

// KVM's APIC timer counts nanoseconds. An interrupt that comes between sti and hlt ends the hlt too (Intel SDM, STI).
void rest(uint64_t us) {
  write_msr(0x838, us * 1000);
  asm volatile("sti; hlt; cli" ::: "memory");
}

// Writes the lane's journal for ever.
[[noreturn]] void run_lane(uint64_t lane) {
  volatile lane_header& header = *at<volatile lane_header>(header_address(lane));
  const uint64_t pages = header.pages, seed = header.seed, base = header.base, pace = header.pace_cycles;
  const uint64_t rest_us = header.rest_us;
  const uint64_t expected = pace + rest_us * cycles_per_us(header.tsc_khz);
  if (rest_us != 0) set_up_timer();
  const auto kind = static_cast<pattern>(header.pattern);
  next_step = 1;
  uint64_t before = read_tsc();
  for (;;) {
    if (header.step != next_step - 1) header.gaps = header.gaps + 1;
    auto* const page = at<volatile uint64_t>(base + page_of_step(kind, seed, lane, pages, next_step) * page_bytes);
    page[0] = next_step;
    page[last_word] = next_step;
    header.step = next_step;
    if (next_step == pages) header.filled = 1;
    next_step = next_step + 1;
    if (rest_us != 0) rest(rest_us);
    uint64_t now = read_tsc();
    while (now - before < pace) now = read_tsc();
    const uint64_t cycles = now - before > expected ? now - before - expected : 0;
    if (cycles > header.longest_stall || cycles > header.threshold_cycles ||
        header.reset_request != header.reset_done) {
      note_stall(header, before, cycles);
    }
    before = now;
  }
}

alignas(16) uint8_t ap_stacks[max_lanes][4096];
volatile uint64_t starting_lane;
volatile uint64_t started_lane;

// Starts the vCPU of `lane` by INIT and SIPI through the x2APIC; false if it has not come up after about a second.
bool start_processor(uint64_t lane) {
  starting_lane = lane;
  volatile uint8_t* const copy = at<volatile uint8_t>(0x10000);
  for (const char* from = ap_trampoline; from != ap_trampoline_end; ++from) copy[from - ap_trampoline] = uint8_t(*from);
  uint64_t cr3;
  asm volatile("mov %%cr3, %0" : "=r"(cr3));
  *at<volatile uint32_t>(0x10000 + static_cast<uint64_t>(ap_cr3 - ap_trampoline)) = static_cast<uint32_t>(cr3);
  *at<volatile uint64_t>(0x10000 + static_cast<uint64_t>(ap_stack - ap_trampoline)) =
      reinterpret_cast<uint64_t>(ap_stacks[lane] + sizeof ap_stacks[lane]);
  write_msr(0x1b, read_msr(0x1b) | 0xc00);  // x2APIC mode
  write_msr(0x80f, 0x1ff);                  // spurious vector: enables the APIC
  write_msr(0x830, (lane << 32) | 0x4500);  // INIT
  const uint64_t start = read_tsc();
  while (read_tsc() - start < 30'000'000) {  // 10 ms, as the MP specification asks for
  }
  write_msr(0x830, (lane << 32) | 0x4610);  // SIPI, vector 0x10
  while (started_lane != lane) {
    if (read_tsc() - start > 3'000'000'000) return false;
  }
  return true;
}

void write_headers(const options& chosen, uint64_t lanes) {
  const uint64_t khz = tsc_khz();
  for (uint64_t i = lanes; i-- > 0;) {
    volatile lane_header& header = *at<volatile lane_header>(header_address(i));
    header.version = layout_version;
    header.lane = i;
    header.lanes = lanes;
    header.pages = chosen.pages;
    header.pattern = static_cast<uint64_t>(chosen.kind);
    header.seed = chosen.seed;
    header.base = lane_base(i, chosen.pages);
    header.pace_cycles = chosen.pace_cycles;
    header.threshold_cycles = chosen.threshold_us * cycles_per_us(khz);
    header.tsc_khz = khz;
    header.rest_us = chosen.rest_us;
    header.magic = magic;
  }
}

}  // namespace

void guest_main(const uint8_t* boot_params) {
  set_up_exceptions();
  options chosen;
  const option_error wrong = parse_options(command_line(boot_params), chosen);
  if (!wrong.message.empty()) give_up(wrong.message, wrong.word);
  uint64_t lanes = processor_count();
  if (lanes > max_lanes) lanes = max_lanes;
  if (!fits(chosen, lanes, ram_end(boot_params))) give_up("journal.pages for every vCPU do not fit into RAM");
  if (lane_base(lanes, chosen.pages) > 0x40000000) map_four_gib();
  write_headers(chosen, lanes);
  print("journal: lanes=");
  print_number(lanes, 10);
  print(" pages=");
  print_number(chosen.pages, 10);
  print("\n");
  for (uint64_t lane = 1; lane < lanes; ++lane) {
    if (!start_processor(lane)) give_up("a vCPU does not start");
  }
  run_lane(0);
}

void ap_main() {
  load_idt();
  const uint64_t lane = starting_lane;
  started_lane = lane;
  run_lane(lane);
}

void exception_main(uint64_t vector, const uint64_t* frame) {
  print("journal: exception ");
  print_number(vector, 10);
  print(" rip/error 0x");
  print_number(frame[0], 16);
  print(" 0x");
  print_number(frame[1], 16);
  print("\n");
  halt();
}
