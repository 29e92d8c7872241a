#include "reference_vmm/boot.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/file.hpp"
#include "base/units.hpp"

namespace coppice::reference {
namespace {

// Firecracker v1.12.1, src/vmm/src/arch/x86_64/layout.rs, regs.rs and mptable.rs.
constexpr std::uint64_t gdt_address = 0x500;
constexpr std::uint64_t idt_address = 0x520;
constexpr std::uint64_t boot_params_address = 0x7000;
constexpr std::uint64_t boot_stack = 0x8ff0;
constexpr std::uint64_t pml4_address = 0x9000;
constexpr std::uint64_t pdpt_address = 0xa000;
constexpr std::uint64_t directory_address = 0xb000;
constexpr std::uint64_t command_line_address = 0x20000;
constexpr std::uint64_t command_line_limit = 2048;
constexpr std::uint64_t low_ram_end = 0x9fc00;  // the MP table follows
constexpr std::uint64_t high_ram_start = 0x100000;
constexpr std::array<std::uint64_t, 4> gdt{0, 0xaf9b000000ffff, 0xcf93000000ffff, 0x8f8b000000ffff};

template <class T>
void put(std::vector<std::byte>& to, std::size_t offset, T value) {
  std::memcpy(to.data() + offset, &value, sizeof value);
}

result<void> load_segment(guest_ram& ram, int fd, const Elf64_Phdr& segment) {
  if (segment.p_paddr < high_ram_start || segment.p_filesz > segment.p_memsz) {
    return error{errc::corrupt, 0, "the kernel has a segment below 1 MiB or of a wrong size"};
  }
  if (ram.at(segment.p_paddr, segment.p_memsz).empty() && segment.p_memsz != 0) {
    return error{errc::invalid_argument, 0, "the kernel does not fit into the guest's memory"};
  }
  std::vector<std::byte> content(segment.p_filesz);
  COPPICE_TRY(read_all_at(fd, content, segment.p_offset));
  return ram.write(segment.p_paddr, content);
}

struct loaded_kernel {
  std::uint64_t entry = 0;
  std::uint64_t end = 0;  // of its last segment
};

result<loaded_kernel> load_kernel(guest_ram& ram, const std::filesystem::path& kernel) {
  auto file = open_file(kernel, O_RDONLY);
  if (!file) return std::move(file).error();
  Elf64_Ehdr header{};
  const auto header_bytes = std::as_writable_bytes(std::span(&header, 1));
  if (!read_all_at(file->get(), header_bytes, 0) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64 ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return error{errc::corrupt, 0, kernel.string() + " is no ELF64 kernel for x86-64"};
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  COPPICE_TRY(read_all_at(file->get(), std::as_writable_bytes(std::span(segments)), header.e_phoff));
  loaded_kernel loaded{header.e_entry, high_ram_start};
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_LOAD) continue;
    COPPICE_TRY(load_segment(ram, file->get(), segment));
    loaded.end = std::max(loaded.end, segment.p_paddr + segment.p_memsz);
  }
  return loaded;
}

struct loaded_initrd {
  std::uint64_t address = 0;
  std::uint64_t size = 0;  // 0: there is none
};

// At the end of the RAM below the gap, as Firecracker's loader puts it: the kernel finds it by its boot_params alone.
result<loaded_initrd> load_initrd(guest_ram& ram, const std::filesystem::path& initrd, std::uint64_t kernel_end) {
  if (initrd.empty()) return loaded_initrd{};
  auto file = open_file(initrd, O_RDONLY);
  if (!file) return std::move(file).error();
  struct stat status {};
  if (::fstat(file->get(), &status) != 0) return errno_error("size of " + initrd.string());
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size == 0) return error{errc::invalid_argument, 0, initrd.string() + " is empty: no initrd"};
  const std::uint64_t end = ram.regions().front().bytes.size();
  const std::uint64_t address = size < end ? (end - size) / page_size * page_size : 0;
  if (address < kernel_end)
    return error{errc::invalid_argument, 0, "the initrd does not fit into the guest's memory beside the kernel"};
  std::vector<std::byte> content(size);
  COPPICE_TRY(read_all_at(file->get(), content, 0));
  COPPICE_TRY(ram.write(address, content));
  return loaded_initrd{address, size};
}

result<void> write_boot_params(guest_ram& ram, std::size_t command_line_size, const loaded_initrd& initrd) {
  std::vector<std::byte> page(page_size);
  put<std::uint16_t>(page, 0x1fe, 0xaa55);                       // boot_flag
  put<std::uint32_t>(page, 0x202, 0x53726448);                   // "HdrS"
  put<std::uint8_t>(page, 0x210, 0xff);                          // type_of_loader: undefined
  put(page, 0x218, static_cast<std::uint32_t>(initrd.address));  // ramdisk_image
  put(page, 0x21c, static_cast<std::uint32_t>(initrd.size));     // ramdisk_size
  put<std::uint32_t>(page, 0x228, static_cast<std::uint32_t>(command_line_address));
  put<std::uint32_t>(page, 0x230, 0x1000000);  // kernel_alignment
  put<std::uint32_t>(page, 0x238, static_cast<std::uint32_t>(command_line_size));
  std::uint8_t entries = 0;
  const auto add = [&](std::uint64_t start, std::uint64_t end, std::uint32_t type) {
    const std::size_t at = 0x2d0 + std::size_t{20} * entries++;
    put(page, at, start);
    put(page, at + 8, end - start);
    put(page, at + 16, type);
  };
  add(0, low_ram_end, 1);
  add(low_ram_end, high_ram_start, 2);
  for (const ram_region& region : ram.regions()) {
    const std::uint64_t start = region.guest_address == 0 ? high_ram_start : region.guest_address;
    add(start, region.guest_address + region.bytes.size(), 1);
  }
  put(page, 0x1e8, entries);
  return ram.write(boot_params_address, page);
}

result<void> write_page_tables(guest_ram& ram) {
  std::vector<std::byte> directory(page_size);
  for (std::size_t i = 0; i < 512; ++i) put(directory, i * 8, (std::uint64_t{i} << 21) | 0x83);
  const std::uint64_t to_pdpt = pdpt_address | 3, to_directory = directory_address | 3;
  COPPICE_TRY(ram.write(pml4_address, std::as_bytes(std::span(&to_pdpt, 1))));
  COPPICE_TRY(ram.write(pdpt_address, std::as_bytes(std::span(&to_directory, 1))));
  COPPICE_TRY(ram.write(directory_address, directory));
  COPPICE_TRY(ram.write(gdt_address, std::as_bytes(std::span(gdt))));
  const std::uint64_t idt = 0;
  return ram.write(idt_address, std::as_bytes(std::span(&idt, 1)));
}

// The byte that makes all bytes add up to 0.
std::uint8_t checksum(std::span<const std::byte> bytes) {
  const unsigned sum = std::accumulate(bytes.begin(), bytes.end(), 0U,
                                       [](unsigned all, std::byte b) { return all + std::to_integer<unsigned>(b); });
  return static_cast<std::uint8_t>(-static_cast<int>(sum & 0xff));
}

// Intel MultiProcessor Specification 1.4: the processors, one ISA bus, the I/O APIC and its 24 interrupts.
result<void> write_mp_table(guest_ram& ram, unsigned vcpus) {
  constexpr std::size_t processor_size = 20, entry_size = 8, header_size = 44, irqs = 24;
  const auto entries = static_cast<std::uint16_t>(vcpus + 2 + irqs);
  std::vector<std::byte> table(header_size + vcpus * processor_size + (2 + irqs) * entry_size);
  const auto apic_id = static_cast<std::uint8_t>(vcpus);
  std::memcpy(table.data(), "PCMP", 4);
  put(table, 4, static_cast<std::uint16_t>(table.size()));
  put<std::uint8_t>(table, 6, 4);
  std::memcpy(table.data() + 8, "COPPICE VMM         ", 20);
  put(table, 34, entries);
  put<std::uint32_t>(table, 36, 0xfee00000);
  std::size_t at = header_size;
  for (unsigned i = 0; i < vcpus; ++i, at += processor_size) {
    put(table, at + 1, static_cast<std::uint8_t>(i));
    put<std::uint8_t>(table, at + 2, 0x14);
    put<std::uint8_t>(table, at + 3, i == 0 ? 3 : 1);  // enabled; the first is the boot processor
    put<std::uint32_t>(table, at + 4, 0x600);
    put<std::uint32_t>(table, at + 8, 0x201);
  }
  put<std::uint8_t>(table, at, 1);
  std::memcpy(table.data() + at + 2, "ISA   ", 6);
  at += entry_size;
  put<std::uint8_t>(table, at, 2);
  put(table, at + 1, apic_id);
  put<std::uint8_t>(table, at + 2, 0x14);
  put<std::uint8_t>(table, at + 3, 1);
  put<std::uint32_t>(table, at + 4, 0xfec00000);
  at += entry_size;
  for (std::uint8_t irq = 0; irq < irqs; ++irq, at += entry_size) {
    put<std::uint8_t>(table, at, 3);
    put(table, at + 5, irq);
    put(table, at + 6, apic_id);
    put(table, at + 7, irq);
  }
  put(table, 7, checksum(table));
  std::vector<std::byte> pointer(16);
  std::memcpy(pointer.data(), "_MP_", 4);
  put(pointer, 4, static_cast<std::uint32_t>(low_ram_end + pointer.size()));
  put<std::uint8_t>(pointer, 8, 1);
  put<std::uint8_t>(pointer, 9, 4);
  put(pointer, 10, checksum(pointer));
  COPPICE_TRY(ram.write(low_ram_end, pointer));
  return ram.write(low_ram_end + pointer.size(), table);
}

kvm_segment segment(std::uint16_t selector, std::uint8_t type, bool code) {
  kvm_segment made{};
  made.limit = 0xffffffff;
  made.selector = selector;
  made.type = type;
  made.present = 1;
  made.s = type == 0xb && !code ? 0 : 1;
  made.l = code ? 1 : 0;
  made.db = type == 3 ? 1 : 0;
  made.g = 1;
  return made;
}

}  // namespace

result<std::uint64_t> load_guest(guest_ram& ram, const std::filesystem::path& kernel, const std::string& command_line,
                                 unsigned vcpus, const std::filesystem::path& initrd) {
  if (command_line.size() + 1 > command_line_limit) {
    return error{errc::invalid_argument, 0, "the kernel command line is longer than 2,047 bytes"};
  }
  const auto loaded = load_kernel(ram, kernel);
  if (!loaded) return loaded.error();
  const auto ramdisk = load_initrd(ram, initrd, loaded->end);
  if (!ramdisk) return ramdisk.error();
  const std::span text(command_line.c_str(), command_line.size() + 1);
  COPPICE_TRY(ram.write(command_line_address, std::as_bytes(text)));
  COPPICE_TRY(write_boot_params(ram, text.size(), *ramdisk));
  COPPICE_TRY(write_page_tables(ram));
  COPPICE_TRY(write_mp_table(ram, vcpus));
  return loaded->entry;
}

kvm_regs entry_registers(std::uint64_t entry) {
  kvm_regs regs{};
  regs.rip = entry;
  regs.rsp = boot_stack;
  regs.rbp = boot_stack;
  regs.rsi = boot_params_address;
  regs.rflags = 2;
  return regs;
}

kvm_sregs entry_special_registers(const kvm_sregs& before) {
  kvm_sregs sregs = before;
  sregs.cs = segment(0x8, 0xb, true);
  const kvm_segment data = segment(0x10, 0x3, false);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.tr = segment(0x18, 0xb, false);
  sregs.gdt.base = gdt_address;
  sregs.gdt.limit = sizeof gdt - 1;
  sregs.idt.base = idt_address;
  sregs.idt.limit = sizeof(std::uint64_t) - 1;
  sregs.cr0 |= 0x80000001;  // PG, PE
  sregs.cr3 = pml4_address;
  sregs.cr4 |= 0x20;    // PAE
  sregs.efer |= 0x500;  // LME, LMA
  return sregs;
}

}  // namespace coppice::reference
