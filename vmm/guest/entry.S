# Entry of the journal guest: long mode, identity-mapped, RSI = boot_params (Linux's 64-bit boot protocol, as Firecracker and
# coppice-vmm enter a kernel), and the way of the other vCPUs from INIT/SIPI's real mode to the same state.
        .section .text.entry, "ax"
        .globl _start
        .code64
_start:
        cli
        lea     stacks_end(%rip), %rsp
        mov     %rsi, %rdi
        call    guest_main
0:      hlt
        jmp     0b

        # Copied to 0x10000 (SIPI vector 0x10). Runs there in real mode, CS = 0x1000.
        .globl trampoline
        .globl trampoline_end
        .code16
trampoline:
        cli
        mov     %cs, %ax
        mov     %ax, %ds
        lgdtl   trampoline_gdt_pointer - trampoline
        mov     $0x20, %eax                     # PAE
        mov     %eax, %cr4
        mov     $0x9000, %eax                   # the page tables that the first vCPU was entered with
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx               # EFER: long mode
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     $0x80000011, %eax               # paging, protection
        mov     %eax, %cr0
        ljmpl   $0x08, $(0x10000 + trampoline_long - trampoline)
        .code64
trampoline_long:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $1, %edi                        # this vCPU's lane: the next free number
        lea     next_lane, %rax
        lock xadd %rdi, (%rax)
        mov     %rdi, %rsp                      # a stack of 4 KiB a lane, below that of lane 0
        neg     %rsp
        shl     $12, %rsp
        add     $stacks_end, %rsp
        mov     $ap_main, %rax
        call    *%rax
0:      hlt
        jmp     0b
        .balign 8
trampoline_gdt:
        .quad   0
        .quad   0x00af9b000000ffff              # 64-bit code
        .quad   0x00cf93000000ffff              # data
trampoline_gdt_pointer:
        .word   trampoline_gdt_pointer - trampoline_gdt - 1
        .long   0x10000 + trampoline_gdt - trampoline
trampoline_end:

        .data
        .globl next_lane
        .balign 8
next_lane:
        .quad   1

        .bss
        .balign 4096
        .skip   4 * 4096
stacks_end:

        .section .note.GNU-stack, "", @progbits
